"""The run folder: checkpoints, resume, backup and restore."""
