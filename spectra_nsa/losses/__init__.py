"""One term a file. Losses own no parameters: what learns lives in the model, so that a checkpoint holds all of it."""
