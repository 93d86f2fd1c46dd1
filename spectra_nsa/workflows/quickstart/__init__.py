"""`spectra quickstart`: data, training, evaluation and a report in one command."""
