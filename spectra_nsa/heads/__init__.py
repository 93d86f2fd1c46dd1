"""The heads: hidden states to named outputs, in plain torch."""
