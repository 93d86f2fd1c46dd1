"""Readers: the bytes of one source to records, and the rows that cannot be read."""
