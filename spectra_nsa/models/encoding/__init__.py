"""Encoding: texts to vectors, in batches of similar length and in the fastest number format."""
