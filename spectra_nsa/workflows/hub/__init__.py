"""A model with its exports on the Hugging Face Hub, with a card that says where it comes from."""
