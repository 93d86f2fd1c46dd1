"""What can be done with the experts of a saved model."""
