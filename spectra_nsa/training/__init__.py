"""From a recipe to a trained model, on sentence-transformers' trainer."""
