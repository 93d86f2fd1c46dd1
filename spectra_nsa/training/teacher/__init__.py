"""Teachers for distillation: their vectors, computed once, and their lookup in a batch."""
