"""Results in; Markdown, terminal tables and a self-contained HTML page out."""
