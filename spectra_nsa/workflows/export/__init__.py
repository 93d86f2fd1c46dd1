"""`spectra export`: a model in a format that other programs run, checked against the model."""
