"""Vectors and codes in, hits out: no models here. Shapes: Q queries, N documents, C candidates, K hits, D numbers."""
