"""Results and run logs in; Markdown, terminal tables and self-contained HTML pages out."""
