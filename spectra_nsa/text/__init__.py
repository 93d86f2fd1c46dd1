"""Text sources: local files, Hugging Face datasets and the Python environment, checked row by row."""
