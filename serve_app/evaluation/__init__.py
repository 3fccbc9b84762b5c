"""Evaluation: cases are run through the graph under several configurations, graded, and compared."""
