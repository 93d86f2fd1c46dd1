"""`python -m spectra_nsa` is `spectra`."""

from spectra_nsa.cli.main import main

main()
