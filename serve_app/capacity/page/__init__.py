"""The report as one page: plots as SVG, tables and text, without a script and without anything from elsewhere."""
