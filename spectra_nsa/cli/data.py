"""`spectra data`: a look at a source of text."""

from __future__ import annotations

import typer

app = typer.Typer(help="Look at data before training on it.", no_args_is_help=True)
