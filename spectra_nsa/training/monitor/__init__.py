"""What is measured, logged and shown while a run trains."""
