"""`spectra mine`: hard negatives for pairs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted


def mine_command(
    source: Annotated[str, typer.Argument(help="Pairs: a file, a Hub dataset, a BEIR folder, or python:installed.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A model folder or Hub name, or bm25.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Write here: .jsonl or .parquet.")],
    corpus: Annotated[str | None, typer.Option("--corpus", "-c", help="A source of further candidates.")] = None,
    negatives: Annotated[int, typer.Option(help="Negatives per row, 1 to 8.")] = 1,
    range_min: Annotated[int, typer.Option(help="Skip this many of the best candidates.")] = 0,
    range_max: Annotated[int | None, typer.Option(help="Consider this many; by default 10 per negative.")] = None,
    margin: Annotated[float | None, typer.Option(help="Minimum gap to the positive's score.")] = None,
    relative_margin: Annotated[
        float | None, typer.Option(help="The gap as a share of that score, such as 0.05.")
    ] = None,
    percentage_to_positive: Annotated[float | None, typer.Option(help="0.95 is --relative-margin 0.05.")] = None,
    max_score: Annotated[float | None, typer.Option(help="Largest score of a negative.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Smallest score of a negative.")] = None,
    sampling: Annotated[str, typer.Option(help="top takes the best ones, random any of those left.")] = "top",
    seed: Annotated[int, typer.Option(min=0, help="Seed of --sampling random.")] = 0,
    judge: Annotated[str | None, typer.Option(help="A second model that drops candidates that look positive.")] = None,
    judge_ratio: Annotated[float, typer.Option(help="The judge's limit, as a share of the positive's score.")] = 1.0,
    incomplete: Annotated[
        str, typer.Option(help="Rows with too few negatives: drop writes them to another file, keep repeats negatives.")
    ] = "drop",
    scores: Annotated[bool, typer.Option("--scores", help="Write the scores of judge or model as a list.")] = False,
    keep: Annotated[str | None, typer.Option(help="Further columns to write, separated by commas.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Comma-separated ROLE=COLUMN; text=COLUMN is for --corpus.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split of a folder or dataset.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The largest number of rows to read.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read the data and print the plan only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find hard negatives for pairs: documents that a model ranks high and that are not the answer.

    Example: spectra mine pairs.csv --model runs/mine/model --negatives 4 --relative-margin 0.05 --output mined.jsonl
    """
    from spectra_nsa.text.columns import parse_columns
    from spectra_nsa.workflows.mine.run import mine

    try:
        facts = mine(
            source, model, output, corpus=corpus, judge=judge, incomplete=incomplete, scores=scores,
            keep=[] if keep is None else [name.strip() for name in keep.split(",")],
            columns=None if columns is None else parse_columns(columns), split=split, limit=limit, dry_run=dry_run,
            say=lambda line: print(f"  {line}", file=sys.stderr, flush=True),
            negatives=negatives, range_min=range_min, range_max=range_max, margin=margin,
            relative_margin=relative_margin, percentage_to_positive=percentage_to_positive, max_score=max_score,
            min_score=min_score, sampling=sampling, seed=seed, judge_ratio=judge_ratio,
        )  # fmt: skip
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print_json({"schema": 1, **facts})
    else:
        _show(facts)


def _show(facts: dict[str, Any]) -> None:
    counts, rules = facts["counts"], facts["rules"]
    if facts.get("dry_run"):
        judge = f", at most {counted(facts['pairs_to_judge'], 'pair')} to judge" if "pairs_to_judge" in facts else ""
        blocks = counted(facts["blocks"], "block")
        print(f"{facts['blocks_to_search']} of {blocks} of anchors to search{judge}. No file was written.")
        return
    print(f"{counted(counts['written'], 'row')} with {counted(rules['negatives'], 'negative')} → {facts['output']}")
    if counts["incomplete"] or counts["without"]:
        which = "they" if facts["incomplete"] == "drop" else "the latter"
        file = f"; {which} are in {facts['set_aside']}" if facts["set_aside"] else ""
        print(f"{counted(counts['incomplete'], 'row')} with fewer negatives, {counts['without']:,} with none{file}")
        if counts["incomplete"] and facts["incomplete"] == "keep":
            print("rows with fewer repeat the negatives that they have")
        elif rules["range_max"] < counts["documents"]:
            print("a larger --range-max may find more")
    if counts["dropped"]:
        dropped = ", ".join(f"{name} {count:,}" for name, count in counts["dropped"].items())
        print(f"of {counted(counts['candidates'], 'candidate')}, the rules dropped: {dropped}")
    print(f"{facts['seconds']:.0f} s, {facts['peak_memory_gb']:.1f} GB of memory at the peak; {facts['meta']}")
