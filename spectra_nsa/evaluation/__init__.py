"""Tasks × systems → results."""
