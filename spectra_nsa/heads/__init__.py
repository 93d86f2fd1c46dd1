"""What turns hidden states into named outputs: plain torch, a token or pooled tensor in, one output out."""
