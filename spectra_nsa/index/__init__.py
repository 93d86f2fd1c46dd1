"""Vectors and codes in, hits out, without torch.

Shapes: Q queries, N documents, C candidates, K hits, D vector width, B bits.
"""
