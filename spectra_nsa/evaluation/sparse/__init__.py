"""Evaluation of sparse vectors: systems that rank by them, and tasks that describe them.

Legend: Q queries, N documents, V terms of the vocabulary, k hits per query.
"""
