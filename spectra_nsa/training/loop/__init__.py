"""The training loop: trainer, arguments, schedules, callbacks and sharding."""
