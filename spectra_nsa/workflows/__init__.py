"""Where text, models, training and evaluation meet."""
