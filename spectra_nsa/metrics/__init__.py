"""Metrics on arrays: ranking, similarity, detection, confidence intervals, health of embeddings. No models."""
