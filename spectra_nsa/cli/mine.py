"""`spectra mine`: hard negatives for pairs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def mine_command(
    source: Annotated[
        str, typer.Argument(help="Pairs: a file, a Hugging Face set, a BEIR folder, or python:installed.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="A model folder or Hub name, or bm25.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Write here: .jsonl or .parquet.")],
    corpus: Annotated[str | None, typer.Option("--corpus", "-c", help="A source of further candidates.")] = None,
    negatives: Annotated[int, typer.Option(help="Negatives a row, 1 to 8.")] = 1,
    range_min: Annotated[int, typer.Option(help="Pass over so many of the best candidates.")] = 0,
    range_max: Annotated[int | None, typer.Option(help="Look at so many of them; by default 10 a negative.")] = None,
    margin: Annotated[float | None, typer.Option(help="Least distance to the positive's score.")] = None,
    relative_margin: Annotated[
        float | None, typer.Option(help="The same as a share of the positive's score, such as 0.05.")
    ] = None,
    percentage_to_positive: Annotated[
        float | None, typer.Option(help="The same from the other side: 0.95 is --relative-margin 0.05.")
    ] = None,
    max_score: Annotated[float | None, typer.Option(help="Largest score of a negative.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Smallest score of a negative.")] = None,
    sampling: Annotated[str, typer.Option(help="top: the best that are left; random: any of them.")] = "top",
    seed: Annotated[int, typer.Option(min=0, help="Seed of --sampling random.")] = 0,
    judge: Annotated[
        str | None, typer.Option(help="A second model, or a cross-encoder, drops what it takes for a positive.")
    ] = None,
    judge_ratio: Annotated[
        float, typer.Option(help="With --judge: its score of a negative, at most so much of the positive's.")
    ] = 1.0,
    incomplete: Annotated[
        str, typer.Option(help="Rows with too few negatives: drop sets them aside, keep repeats what they have.")
    ] = "drop",
    scores: Annotated[
        bool, typer.Option("--scores", help="Write the judge's scores too, or the model's, as a list.")
    ] = False,
    keep: Annotated[
        str | None, typer.Option(help="Other columns of the source to write, with commas between: --keep group,id.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help="ROLE=COLUMN, with commas between.")] = None,
    split: Annotated[str | None, typer.Option(help="The split of a folder or set.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows to read.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read the data, say what would be done, and end.")] = False,
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
        print("stopped; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps({"schema": 1, **facts}, ensure_ascii=False))
    else:
        _show(facts)


def _show(facts: dict[str, Any]) -> None:
    counts, rules = facts["counts"], facts["rules"]
    if facts.get("dry_run"):
        judged = f", at most {facts['pairs_to_judge']:,} pairs to judge" if "pairs_to_judge" in facts else ""
        end = "Nothing was written."
        print(f"{facts['blocks_to_search']} of {facts['blocks']} blocks of anchors to search{judged}. {end}")
        return
    print(f"{counts['written']:,} rows with {rules['negatives']} negatives → {facts['output']}")
    if counts["incomplete"] or counts["without"]:
        where = f"; set aside in {facts['set_aside']}" if facts["set_aside"] else ""
        print(f"{counts['incomplete']:,} rows found fewer, {counts['without']:,} none{where}")
        if counts["incomplete"] and facts["incomplete"] == "keep":
            print("those with fewer were kept and repeat theirs")
        elif rules["range_max"] < counts["documents"]:
            print("a wider --range-max finds more")
    if counts["dropped"]:
        named = ", ".join(f"{name} {count:,}" for name, count in counts["dropped"].items())
        print(f"of {counts['candidates']:,} candidates the rules dropped: {named}")
    print(f"{facts['seconds']:.0f} s, {facts['peak_memory_gb']:.1f} GB of memory at the peak; {facts['meta']}")
