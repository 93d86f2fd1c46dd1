"""Teachers of distillation: their vectors, computed once and cached, and the lookup for a batch."""
