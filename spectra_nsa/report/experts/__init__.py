"""The page and the lines of an analysis of experts."""
