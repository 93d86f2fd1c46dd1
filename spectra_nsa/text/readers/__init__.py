"""One source's bytes to records."""
