"""The evaluation report's page: its plots, tables and cases."""
