"""The law of every reader and loader: a result or a `SpectraError`, never another exception, a hang or much memory."""
