"""Where text comes from: local files, Hugging Face sets, the Python environment; and what is wrong with it."""
