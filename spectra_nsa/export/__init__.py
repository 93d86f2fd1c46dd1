"""Models in formats that other software reads."""
