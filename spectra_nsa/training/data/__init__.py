"""The rows a run trains on: read, tokenised once, packed and batched."""
