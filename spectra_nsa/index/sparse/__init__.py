"""Exact search by sparse vectors: posting lists on disk, and how they are scored.

The posting list of a term holds the documents that contain it, ascending, and the term's weight (impact) in each. The
score of a document is the inner product of its weights with those of the query.

Legend: Q queries, N documents, V terms of the vocabulary, P postings, K hits per query, C candidates per query.
"""
