"""A corpus encoded to a folder of shards: streamed, resumable, by several processes or machines."""
