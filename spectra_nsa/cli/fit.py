"""`spectra codes fit` and `spectra anomaly fit`: fit parts of a saved model to a user's texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spectra_nsa.cli.options import Columns, shared_columns
from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted

codes_app = typer.Typer(help="Fit a model's binary codes.", no_args_is_help=True)
anomaly_app = typer.Typer(help="Fit a model's out-of-distribution score.", no_args_is_help=True)


@codes_app.callback()
def codes() -> None:
    """Fit a model's binary codes."""


@anomaly_app.callback()
def anomaly() -> None:
    """Fit a model's out-of-distribution score."""


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


@codes_app.command("fit")
def fit_codes_command(
    model: Annotated[str, typer.Argument(help="A saved model's folder.")],
    corpus: Annotated[str, typer.Option("--corpus", "-c", help="A source of texts: a file, or python:stdlib.")],
    queries: Annotated[
        str | None, typer.Option("--queries", "-q", help="Source of typical queries (default: excerpts of the corpus).")
    ] = None,
    columns: Columns = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this folder instead of MODEL.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fit the binary codes to the corpus that they will encode, so that similar texts get similar codes.

    Example: spectra codes fit runs/quickstart/model --corpus python:stdlib --output coded
    """
    from spectra_nsa.cli.texts import read_texts
    from spectra_nsa.workflows.fit import fit_codes_on, fit_target

    fit_target(model, output)
    mapping = shared_columns(columns)
    query_texts = read_texts(queries, mapping) if queries is not None else None
    texts = read_texts(corpus, mapping)
    mapping.check()
    facts = fit_codes_on(model, texts, query_texts, output=output, seed=seed, name=corpus, say=_say)
    if as_json:
        print_json({"schema": 1, "model": facts.pop("folder"), "quarantined": mapping.quarantined, **facts})
        return
    print(
        f"{counted(facts['texts'], 'text')}; {counted(facts['queries'], 'held-out query')}: "
        "recall of their 10 nearest in the first 100"
    )
    print("bits   Hamming          float query × bits   (before → after)")
    for width, after in facts["after"].items():
        before = facts["before"][width]
        print(
            f"{width:>4}   {before['symmetric']:.3f} → {after['symmetric']:.3f}    "
            f"{before['asymmetric']:.3f} → {after['asymmetric']:.3f}"
        )
    print(f"model: {facts['folder']}")


@anomaly_app.command("fit")
def fit_anomaly_command(
    model: Annotated[str, typer.Argument(help="A saved model's folder.")],
    texts: Annotated[str, typer.Option("--texts", "-t", help="A source of in-domain texts.")],
    columns: Columns = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this folder instead of MODEL.")
    ] = None,
    prototypes: Annotated[
        int | None, typer.Option(min=2, help="Number of prototypes (default: chosen from the texts).")
    ] = None,
    level: Annotated[float, typer.Option(min=0.0001, max=0.5, help="Target false-alarm rate of is_ood.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fit the out-of-distribution score to in-domain texts, and calibrate its p-value on held-out ones.

    Example: spectra anomaly fit runs/quickstart/model --texts python:stdlib --output guarded
    """
    from spectra_nsa.cli.texts import read_texts
    from spectra_nsa.workflows.fit import fit_anomaly_on, fit_target

    fit_target(model, output)
    mapping = shared_columns(columns)
    normal = read_texts(texts, mapping)
    mapping.check()
    facts = fit_anomaly_on(model, normal, output=output, prototypes=prototypes, level=level, seed=seed, say=_say)
    if as_json:
        print_json({"schema": 1, "model": facts.pop("folder"), "quarantined": mapping.quarantined, **facts})
        return
    how = "prototypes and covariances" if facts["method"] == "prototypes" else "density"
    print(f"fitted on {counted(facts['texts'], 'text')}: {how}, {counted(facts['prototypes'], 'prototype')}")
    print(f"calibrated on {counted(facts['calibration'], 'held-out text')}")
    measured, target = 100 * facts["false_alarms"], 100 * facts["level"]
    print(
        f"false alarms: {measured:.1f} % of {counted(facts['checked'], 'other held-out text')}; target: {target:.3g} %"
    )
    print(f"model: {facts['folder']}")
