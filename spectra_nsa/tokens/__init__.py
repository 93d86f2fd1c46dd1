"""Tokenizers: kinds, training and reports; and batches of texts of similar length."""
