"""Reports as pages: one file each, that needs nothing from anywhere: words, tables, plots, and the style they share."""
