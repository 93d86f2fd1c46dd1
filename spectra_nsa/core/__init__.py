"""What every layer may lean on: errors, files, seeds, the console, the results schema."""
