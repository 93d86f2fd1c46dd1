"""The Hugging Face model (encoder and heads), the SentenceTransformer around it, and the ways in and out."""
