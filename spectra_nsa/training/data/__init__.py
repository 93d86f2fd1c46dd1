"""The rows of a training run: read, tokenized once, packed and batched."""
