"""Modules that every layer may use: errors, files, checksums, the cache, processes, precision, the console, results."""
