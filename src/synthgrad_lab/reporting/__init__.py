"""Reports: runs read back, statistics, tables, figures, pages. Knows no family."""
