"""Public retrieval collections: BEIR, NanoBEIR, CodeSearchNet and CoSQA, from local copies or the Hugging Face Hub."""
