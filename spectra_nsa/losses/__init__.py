"""The loss stack and its terms. Losses own no parameters: what learns is in the model, and in its checkpoints."""
