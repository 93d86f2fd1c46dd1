"""`spectra moe`: what can be done with the experts of a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spectra_nsa.cli.options import Columns, shared_columns
from spectra_nsa.core.console import console, print_json
from spectra_nsa.core.errors import UsageError

app = typer.Typer(help="Work with a model's experts.", no_args_is_help=True)


@app.callback()
def moe() -> None:
    """Work with a model's experts."""


@app.command("dense")
def dense_command(
    model: Annotated[str, typer.Argument(help="The folder of a saved model with experts.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    expert: Annotated[int, typer.Option(min=0, help="The expert to keep in each layer, counted from 0.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Keep one expert of each layer: a dense model, as small and fast as the one that the experts came from.

    Example: spectra moe dense runs/experts/model --expert 2 --output dense
    """
    from spectra_nsa.workflows.moe.dense import recover_dense

    facts = recover_dense(model, output, expert=expert)
    if as_json:
        print_json({"schema": 1, "model": facts.pop("folder"), **facts})
        return
    before, after = facts["parameters"]["before"], facts["parameters"]["after"]
    print(f"expert {expert} of each layer: {before:,} → {after:,} parameters")
    print(f"model: {facts['folder']}")


@app.command("analyze")
def analyze_command(
    model: Annotated[str, typer.Argument(help="The folder of a saved model with experts.")],
    texts: Annotated[
        list[str],
        typer.Option(
            "--texts",
            "-t",
            metavar="NAME=SOURCE",
            help="A domain: its name, and a source of texts or pairs. Repeat it.",
        ),
    ],
    html: Annotated[Path | None, typer.Option(help="Write the page with all charts to this file.")] = None,
    limit: Annotated[int, typer.Option(min=2, help="The most texts or pairs of a domain, drawn at random.")] = 200,
    pairs: Annotated[
        int, typer.Option(min=0, help="The most pairs of a domain that are searched, without each expert; 0 for none.")
    ] = 100,
    permutations: Annotated[int, typer.Option(min=2, help="Shuffles of the choices behind each null.")] = 20,
    columns: Columns = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all figures.")] = False,
) -> None:
    """Measure what experts specialize in, what their choices follow, and what each is worth.

    Texts of two or more domains show what experts know of domains. Pairs are also searched: with each expert taken
    away, with scrambled choices, and with few experts.

    Example: spectra moe analyze runs/experts/model -t python=python:stdlib -t shell=tldr.jsonl --html experts.html
    """
    from spectra_nsa.workflows.moe.analyze import analyze

    if html is not None and html.is_dir():
        raise UsageError(f"{html} is a folder: name a file to write.")
    document = analyze(
        model, texts, limit=limit, pairs=pairs, rounds=permutations, seed=seed, columns=shared_columns(columns)
    )
    if as_json:
        print_json(document)
    else:
        _print_analysis(document)
    if html is not None:
        from spectra_nsa.report.experts.page import experts_page

        experts_page(document).write(html)
        console(stderr=True).print(f"wrote {html}", markup=False)


def _print_analysis(document: dict[str, Any]) -> None:
    from rich.table import Column, Table

    from spectra_nsa.report.experts.summary import HEADER, KEY, findings, layer_rows

    table = Table(*(Column(name, no_wrap=True) for name in HEADER), padding=(0, 0))
    for row in layer_rows(document):
        table.add_row(*row)
    console().print(table)
    console().print(KEY, style="dim", markup=False)
    for line in findings(document):
        console().print(f"• {line}", markup=False)
    for note in document["notes"]:
        console().print(f"note: {note}", markup=False)


@app.command("mix")
def mix_command(
    models: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs, or saved models, trained from one start.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--texts",
            "-t",
            metavar="SOURCE",
            help="Texts of each model's domain, in the order of the models (default: the runs' training data).",
        ),
    ] = None,
    router: Annotated[
        Literal["text", "text_layer", "token"],
        typer.Option(help="What chooses: each text by its words, each text by the layer's input, or each token."),
    ] = "text",
    every: Annotated[int, typer.Option(min=1, help="The top layer and every N-th below it get experts.")] = 1,
    first: Annotated[int, typer.Option(min=0, help="The lowest layer that may have experts.")] = 0,
    limit: Annotated[
        int, typer.Option(min=20, help="The most texts of each model that the router is fitted to.")
    ] = 2000,
    ridge: Annotated[float, typer.Option(min=0, help="Strength of the ridge in the fit of the router.")] = 1e-3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the feed-forward networks of several dense models the experts of one, with a fitted router.

    Train the models apart from one start, each on its own domain. With train.parts=[ffn] all other weights stay equal;
    otherwise they are averaged.

    Example: spectra moe mix runs/medical runs/shell --output mixed
    """
    from spectra_nsa.workflows.moe.mix import mix_models

    facts = mix_models(
        models, output, texts=texts or (), router=router, every=every, first=first, limit=limit, ridge=ridge
    )
    if as_json:
        print_json({"schema": 1, "model": facts.pop("folder"), **facts})
        return
    for at, (name, shares) in enumerate(facts["routing"].items()):
        mean = sum(shares) / len(shares)
        texts_out = facts["held_out"][name]
        print(f"expert {at}: {name}; {mean:.1%} of the choices for its {texts_out:,} held-out texts are right")
    if facts["rest_apart"]:
        print(f"note: the other weights were trained too, are up to {facts['rest_apart']:.1%} apart, and were averaged")
    before, after = facts["parameters"]["before"], facts["parameters"]["after"]
    print(f"{before:,} → {after:,} parameters")
    print(f"model: {facts['folder']}")
