"""What happens to a model before the first step, and after the last."""
