"""`spectra push`: a model with its exports and a card on the Hugging Face Hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spectra_nsa.core.console import print_json
from spectra_nsa.core.errors import UsageError


def push_command(
    folder: Annotated[str, typer.Argument(help="The folder of a saved model, or of a run that has ended.")],
    repo: Annotated[str, typer.Argument(help="The repository: OWNER/NAME. It is created if there is none.")],
    public: Annotated[bool, typer.Option("--public", help="Create it public; without this it is private.")] = False,
    results: Annotated[
        list[Path] | None, typer.Option(help="Results of `spectra eval` for the card. Repeatable.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="License of the weights, such as apache-2.0.")
    ] = None,
    data_licences: Annotated[
        list[str] | None,
        typer.Option("--data-license", help="SOURCE=LICENSE of training data. Repeatable."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of the texts, such as en.")] = None,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Upload the model",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List files and sizes, show the card, upload nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Upload a model to the Hugging Face Hub, with a card made from its run, results and exports.

    The repository is private unless you say --public. Local paths are left out of the card.

    Example: spectra push runs/quickstart my-team/code-search --results results.json --license apache-2.0 --dry-run
    """
    from spectra_nsa.workflows.hub.card import build_card
    from spectra_nsa.workflows.hub.facts import collect_facts
    from spectra_nsa.workflows.hub.push import check_repo, files_to_push, push

    check_repo(repo)
    stated = {}
    for pair in data_licences or ():
        source, mark, name = pair.rpartition("=")
        if not mark or not source or not name:
            raise UsageError(f"--data-license {pair}: write SOURCE=LICENSE, such as pairs.jsonl=cc-by-4.0.")
        stated[source] = name
    facts = collect_facts(folder, results=results or (), data_licences=stated)
    card = build_card(facts, repo, licence=licence, language=language)
    files = files_to_push(facts.folder)
    listed = [{"name": file.name, "bytes": file.size} for file in files]
    document = {"schema": 1, "repo": repo, "private": not public, "files": listed, "card": card}
    if not dry_run:
        print(f"uploading {len(files) + 1} files to {repo}", file=sys.stderr, flush=True)
        document["commit"] = push(repo, files, card, public=public, message=message)
    if as_json:
        print_json(document | {"uploaded": not dry_run})
        return
    if not dry_run:
        print(document["commit"])
        return
    for file in files:
        print(f"{file.size / 1e6:>10.2f} MB  {file.name}")
    kind = "public" if public else "private"
    print(f"{sum(file.size for file in files) / 1e6:>10.2f} MB in all → {repo} ({kind}; nothing uploaded)\n\n{card}")
