"""Hard negatives for pairs: of each anchor's best-scored documents, those that the rules take for wrong answers.

The names and, where they serve, the meanings are those of sentence-transformers' `mine_hard_negatives`: anchors and
documents count once, an anchor's positives are never its negatives, margins are held against the least score of its
positives. We differ: neither texts, nor vectors, nor scores of all anchors are in memory at once (there it is all
vectors, and 16,384 anchors × all documents of scores: 6.6 GB for 100,000 documents; issue 3164 of that project); what
was computed is on disk, for other rules and after a kill; `range_min` counts ranks before the other rules, there it
counts what they have left; near-duplicates of a positive or of the anchor are dropped; rows stay in the order of the
source; BM25 and sparse encoders search too; a second model of any of these kinds judges, not a cross-encoder only.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.text.negatives import Rules
from spectra_nsa.workflows.mine.output import beside, check_keep, check_output, meta, write_rows

if TYPE_CHECKING:
    from spectra_nsa.text.pool import Pool
    from spectra_nsa.text.rows import TextSet
    from spectra_nsa.workflows.mine.candidates import Negatives


def mine(
    source: str | Path,
    model: str | Path,
    output: str | Path,
    *,
    corpus: str | Path | None = None,
    judge: str | Path | None = None,
    incomplete: str = "drop",
    scores: bool = False,
    keep: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
    **rules: Any,
) -> dict[str, Any]:
    """Writes pairs with hard negatives, and FILE.meta.json beside them.

    Args:
        source: pairs, as `load_source` reads them; negatives that they have are not used. Or a BEIR folder: queries
            with their relevant documents, by the judgements of `split` (``None``: train, where there is one).
        model: a SentenceTransformer's or SparseEncoder's folder or Hub name, or ``"bm25"``. Dense vectors are compared
            by cosine, sparse ones by inner product.
        output: the file, JSON Lines (.jsonl) or Parquet (.parquet) by its name.
        corpus: further candidates; ``None`` has the other rows' positives only, of a BEIR folder its corpus.
        judge: a second model, or a CrossEncoder, which drops what it takes for another positive (`judge_ratio`);
            ``None`` for none.
        incomplete: ``"drop"`` sets rows with too few negatives aside, into NAME.incomplete.jsonl; ``"keep"`` repeats
            the negatives that they have. Rows without any are set aside either way.
        scores: whether to write the judge's scores too, without a judge the model's: `scores`, a list, the positive's
            first. A cross-encoder's are from 0 to 1, through a sigmoid.
        keep: other columns of the source to write, such as the one of `data.group`. None by default: whoever trains on
            the file with another library takes every column for a text.
        columns: role to column of the source, see `load_source`.
        split: the split of the source, or of a BEIR folder's judgements.
        limit: maximum number of rows of the source; ``None`` reads all.
        dry_run: whether to read the data, and say what would be done.
        say: called with a line of progress at each stage.
        rules: see `Rules`; and `percentage_to_positive`, 1 − `relative_margin`.

    Returns:
        what was written, with counts, seconds and the peak of memory.

    Raises:
        SpectraError: the source is not made of pairs, a model cannot be opened, or the disk is full.
        UsageError: a rule is out of its range, or the output cannot be written as what its name says.
    """
    began = time.monotonic()
    rule = _rules(rules)
    if judge is None and rule.judge_ratio != 1:
        raise UsageError("--judge-ratio is for a --judge, and none is named.")
    target = Path(output).expanduser()
    check_output(target, str(source), incomplete)
    _check_names([source, corpus], [model, judge])
    from spectra_nsa.core.memory import peak_memory_gb
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.workflows.mine.candidates import Candidates, Judgements, choose
    from spectra_nsa.workflows.mine.scorers import find_teacher

    teacher, second = find_teacher(str(model)), None if judge is None else find_teacher(str(judge), judge=True)
    refused = None if dry_run else target.with_name(f"{target.stem}.quarantine")
    pool, found = _pool(source, corpus, columns, split, limit, refused)
    check_keep(pool, keep)
    _tell(found, rule, say)
    candidates = Candidates(pool, teacher, rule.depth)
    judgements = Judgements(candidates, second) if second is not None else None
    facts: dict[str, Any] = {
        "output": str(target), "source": str(source), "corpus": corpus and str(corpus),
        "model": dataclasses.asdict(teacher), "judge": second and dataclasses.asdict(second),
        "rules": dataclasses.asdict(rule) | {"range_max": rule.depth}, "incomplete": incomplete,
        "precision": None if {one.kind for one in (teacher, second) if one} == {"bm25"} else resolve_precision("auto"),
        "notes": found.pop("notes"), "counts": found,
    }  # fmt: skip
    if dry_run:
        todo = len(candidates.blocks.missing(candidates.count))
        plan = {"dry_run": True, "blocks": candidates.count, "blocks_to_search": todo}
        return facts | plan | ({"pairs_to_judge": judgements.pairs()} if judgements is not None else {})
    for stage in (candidates, judgements):
        if stage is not None:
            stage.run()
    negatives = choose(candidates, judgements, rule)
    found |= {"candidates": negatives.candidates, "dropped": dict(negatives.dropped)}
    _check_any(negatives, rule, incomplete)
    found |= write_rows(target, pool, negatives, incomplete=incomplete, scores=scores, keep=keep, facts=_record(facts))
    aside = beside(target) if beside(target).is_file() else None
    return facts | {
        "meta": str(meta(target)), "set_aside": aside and str(aside), "seconds": round(time.monotonic() - began, 2),
        "peak_memory_gb": round(peak_memory_gb(), 2),
    }  # fmt: skip


def _check_names(sources: Sequence[str | Path | None], models: Sequence[str | Path | None]) -> None:
    """Refuses what is not there before libraries are loaded."""
    from spectra_nsa.models.checks import named_folder
    from spectra_nsa.text.sources import check_source

    for source in sources:
        if source is not None:
            check_source(source)
    for model in models:
        if not isinstance(model, str | Path | None):
            raise UsageError(
                f"mine takes a model by folder or Hub name, not a {type(model).__name__}: what it computes is kept by "
                "the files' SHA-256. Save yours first, with save_pretrained."
            )
        if model is not None and str(model) != "bm25":
            named_folder(model)


def _tell(found: dict[str, Any], rules: Rules, say: Callable[[str], None]) -> None:
    say(
        f"{found['rows']:,} rows: {found['anchors']:,} anchors, {found['documents']:,} documents, "
        f"{rules.depth - rules.range_min} candidates an anchor"
    )
    for note in found["notes"]:
        say(f"note: {note}")


def _check_any(found: Negatives, rules: Rules, incomplete: str) -> None:
    """Refuses to write a file without rows."""
    needed = rules.negatives if incomplete == "drop" else 1
    most = int((found.index_QN >= 0).sum(axis=1).max())
    if most >= needed:
        return
    if not found.candidates:
        raise SpectraError(
            "there is no candidate: all that was found are positives of their own anchors. Add a --corpus. "
            "Nothing was written."
        )
    dropped = ", ".join(f"{name} {count:,}" for name, count in found.dropped.items()) or "none"
    raise SpectraError(
        f"no anchor has {needed} negatives, the most is {most}. Of {found.candidates:,} candidates the rules dropped: "
        f"{dropped}. Loosen those, raise --range-max, add a --corpus or ask for fewer --negatives. Nothing was written."
    )


def _rules(given: dict[str, Any]) -> Rules:
    percentage = given.pop("percentage_to_positive", None)
    if percentage is not None:
        if given.get("relative_margin") is not None:
            raise UsageError("--relative-margin and --percentage-to-positive are one rule: give one of them.")
        if not 0 < percentage <= 1:
            raise UsageError(f"--percentage-to-positive must be above 0 and at most 1 (0.95), not {percentage:g}.")
        given["relative_margin"] = 1 - percentage
    names = [field.name for field in dataclasses.fields(Rules)]
    for name in given:
        if name not in names:
            theirs = {"num_negatives": "negatives", "absolute_margin": "margin", "sampling_strategy": "sampling"}
            raise unknown_name("option of mine", name, names, theirs)
    return Rules(**given)


def _pool(
    source: str | Path, corpus: str | Path | None, columns: Mapping[str, str] | None, split: str | None,
    limit: int | None, refused: Path | None,
) -> tuple[Pool, dict[str, Any]]:  # fmt: skip
    """The numbered texts, and what is to be told of them."""
    from spectra_nsa.text.beir import is_beir, judged_pairs
    from spectra_nsa.text.pool import build_pool
    from spectra_nsa.text.sources import load_source

    if columns is None and is_beir(Path(source).expanduser()):
        pairs = judged_pairs(Path(source).expanduser(), split, limit=limit, quarantine=refused)
        corpus = source if corpus is None else corpus
    else:
        pairs = load_source(source, columns=columns, split=split, limit=limit, quarantine=refused)
    further = load_source(corpus, quarantine=refused) if corpus is not None else None
    pool = build_pool(pairs, further)
    repeated = int((~pool.first_R).sum())
    notes = [note for one in (pairs, further) if one is not None for note in _notes(one)]
    if pairs.kind == "triplets":
        notes.append("the source has negatives of its own, which are not used")
    if repeated:
        notes.append(f"{repeated:,} rows repeat the pair of an earlier row and are left out")
    counts = {
        "rows": len(pool.rows), "repeated": repeated, "quarantined": pairs.quarantined,
        "anchors": len(pool.queries), "documents": len(pool.documents),
    }  # fmt: skip
    return pool, counts | {"notes": notes}


def _notes(found: TextSet) -> list[str]:
    if not found.quarantined:
        return [*found.notes]
    first = found.problems[0]
    where = f"all of them in {found.quarantine_file}" if found.quarantine_file else "nothing was written"
    said = f"{found.quarantined:,} broken rows of {found.name} were left out"
    return [*found.notes, f"{said}, the first of line {first.line}: {first.reason}; {where}"]


def _record(facts: dict[str, Any]) -> dict[str, Any]:
    """What FILE.meta.json says beside columns and counts."""
    from spectra_nsa.core.results import environment

    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"schema": 1, "created": created, **facts, "environment": environment()}
