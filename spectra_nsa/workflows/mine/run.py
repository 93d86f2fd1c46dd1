"""Hard negatives for pairs: an anchor's best-scored documents that the rules take for wrong answers.

Option names are those of sentence-transformers' `mine_hard_negatives`, and so is their meaning: anchors and documents
are deduplicated, an anchor's positives are never its negatives, and margins are relative to the lowest score of its
positives. The differences:

- Memory does not grow with the data. There, all vectors and the scores of 16,384 anchors with all documents are in
  memory (6.6 GB for 100,000 documents; issue 3164 of that project).
- Vectors and hits stay on disk, so that other rules reuse them and a killed run resumes.
- `range_min` counts ranks before the other rules apply; there it counts after them.
- Near-duplicates of a positive or of the anchor are dropped.
- Rows keep the order of the source.
- BM25 and sparse encoders search too, and any of these models can judge, not only a cross-encoder.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import expand_user
from spectra_nsa.workflows.mine.output import check_keep, check_same_request, incomplete_path, meta_path, write_rows
from spectra_nsa.workflows.mine.request import MiningRequest, rules_from
from spectra_nsa.workflows.mine.rules import Rules

if TYPE_CHECKING:
    from spectra_nsa.workflows.mine.candidates import CandidateSearch
    from spectra_nsa.workflows.mine.judging import JudgeScores
    from spectra_nsa.workflows.mine.pool import MiningPool
    from spectra_nsa.workflows.mine.selection import Negatives


def mine(
    source: str | Path, model: str | Path, output: str | Path, *, corpus: str | Path | None = None,
    judge: str | Path | None = None, incomplete: str = "drop", scores: bool = False, keep: Sequence[str] = (),
    columns: Mapping[str, str] | None = None, split: str | None = None, limit: int | None = None,
    dry_run: bool = False, say: Callable[[str], None] = lambda line: None, **rules: Any,
) -> dict[str, Any]:  # fmt: skip
    """Writes pairs with hard negatives, and model, rules and counts into FILE.meta.json.

    Args:
        source: pairs, as `load_source` reads them; negatives that they have are not used. Or a BEIR folder: queries
            with their relevant documents by the judgments of `split` (``None``: train if it exists).
        model: the folder or Hub name of a SentenceTransformer or SparseEncoder, or ``"bm25"``. Dense vectors are
            compared by cosine, sparse ones by inner product.
        output: the file to write, JSON Lines (.jsonl) or Parquet (.parquet) by its suffix.
        corpus: a source of further candidates; ``None`` takes only the other rows' positives, or a BEIR folder's
            corpus. The positives and judgments of this source are known answers as well, never negatives.
        judge: a second model, or a CrossEncoder, which drops candidates that it takes for positives (`judge_ratio`);
            ``None`` for no judge.
        incomplete: what happens to rows with too few negatives: ``"drop"`` writes them into NAME.incomplete.jsonl,
            ``"keep"`` repeats the negatives that they have. Rows without any go into that file either way.
        scores: whether to write the judge's scores, or the model's if there is no judge, as a list `scores` with the
            positive's score first. A cross-encoder's scores are from 0 to 1, by a sigmoid.
        keep: further columns of the source to write, such as the column of `data.group`. The default is none, because
            other libraries take every column of a training file for a text.
        columns: role → column of the source, see `load_source`; the role `text` is that of the corpus. Without it, the
            mapping holds for the corpus too if it has all of these columns.
        split: the split of the source, or of a BEIR folder's judgments.
        limit: maximum number of rows to mine; ``None`` for all. The positives of further rows are known answers.
        dry_run: whether to read the data and return what would be done, without doing it.
        say: called with a line of progress at each stage.
        rules: see `Rules`; also `percentage_to_positive`, which is 1 − `relative_margin`.

    Returns:
        what was written, with counts, seconds and peak memory.

    Raises:
        SpectraError: the source does not hold pairs, a model cannot be opened, or the disk is full.
        UsageError: a rule is out of its range, or the output cannot be written.
    """
    start = time.monotonic()
    request = MiningRequest(
        source=source, model=model, output=expand_user(output), corpus=corpus, judge=judge,
        incomplete=incomplete, scores=scores, keep=keep, columns=columns, split=split, limit=limit,
        rules=rules_from(rules),
    )  # fmt: skip
    request.check()
    prepared = _prepare(request, say, dry_run=dry_run)
    return _plan(prepared) if dry_run else _run(request, prepared, start)


class _Prepared(NamedTuple):
    """Everything that is open before the search begins; `facts` go into FILE.meta.json."""

    pool: MiningPool
    search: CandidateSearch
    judge: JudgeScores | None
    facts: dict[str, Any]


def _prepare(request: MiningRequest, say: Callable[[str], None], *, dry_run: bool) -> _Prepared:
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.workflows.mine.candidates import CandidateSearch
    from spectra_nsa.workflows.mine.judging import JudgeScores
    from spectra_nsa.workflows.mine.scorers import find_scorer
    from spectra_nsa.workflows.mine.sources import load_sources

    rules = request.rules
    model = find_scorer(str(request.model))
    judge = None if request.judge is None else find_scorer(str(request.judge), judge=True)
    pool, counts, notes = load_sources(request, quarantine=None if dry_run else request.quarantine)
    check_keep(pool, request.keep)
    say(
        f"{counted(counts['rows'], 'row')}: {counted(counts['anchors'], 'anchor')}, "
        f"{counted(counts['documents'], 'document')}, "
        f"{counted(rules.depth - rules.range_min, 'candidate')} per anchor"
    )
    for note in notes:
        say(f"note: {note}")
    search = CandidateSearch(pool, model, rules.depth)
    lexical = all(scorer is None or scorer.kind == "bm25" for scorer in (model, judge))
    facts: dict[str, Any] = {
        "output": str(request.output), "source": str(request.source), "corpus": request.corpus and str(request.corpus),
        "model": dataclasses.asdict(model), "judge": judge and dataclasses.asdict(judge),
        "rules": dataclasses.asdict(rules) | {"range_max": rules.depth}, "incomplete": request.incomplete,
        "precision": None if lexical else resolve_precision("auto"), "notes": notes, "counts": counts,
    }  # fmt: skip
    if not dry_run:
        check_same_request(request.output, facts)
    return _Prepared(pool, search, None if judge is None else JudgeScores(search, judge), facts)


def _plan(prepared: _Prepared) -> dict[str, Any]:
    """Returns the facts of a dry run."""
    search, judge = prepared.search, prepared.judge
    missing = len(search.blocks.missing(search.count))
    plan = {"dry_run": True, "blocks": search.count, "blocks_to_search": missing}
    return prepared.facts | plan | ({} if judge is None else {"pairs_to_judge": judge.pairs_to_score()})


def _run(request: MiningRequest, prepared: _Prepared, start: float) -> dict[str, Any]:
    from spectra_nsa.core.memory import peak_memory_gb
    from spectra_nsa.workflows.mine.selection import select_negatives

    pool, search, judge, facts = prepared
    search.run()
    if judge is not None:
        judge.run()
    negatives = select_negatives(search, judge, request.rules)
    facts["counts"] |= {"candidates": negatives.candidates, "dropped": dict(negatives.dropped)}
    _check_any(negatives, request.rules, request.incomplete)
    facts["counts"] |= write_rows(
        request.output, pool, negatives, incomplete=request.incomplete, scores=request.scores, keep=request.keep,
        facts=_provenance(facts),
    )  # fmt: skip
    incomplete = incomplete_path(request.output)
    return facts | {
        "meta": str(meta_path(request.output)), "set_aside": str(incomplete) if incomplete.is_file() else None,
        "seconds": round(time.monotonic() - start, 2), "peak_memory_gb": round(peak_memory_gb(), 2),
    }  # fmt: skip


def _check_any(negatives: Negatives, rules: Rules, incomplete: str) -> None:
    """Refuses to write a file without rows."""
    needed = rules.negatives if incomplete == "drop" else 1
    most = int((negatives.index_QN >= 0).sum(axis=1).max())
    if most >= needed:
        return
    if not negatives.candidates:
        raise SpectraError(
            "no candidates: every document found is a positive of its anchor. Add a --corpus. Nothing was written."
        )
    dropped = ", ".join(f"{name} {count:,}" for name, count in negatives.dropped.items()) or "none"
    candidates = counted(negatives.candidates, "candidate")
    raise SpectraError(
        f"no anchor has {counted(needed, 'negative')}; the most is {most}. Of {candidates}, the rules "
        f"dropped: {dropped}. Loosen those rules, raise --range-max, add a --corpus or ask for fewer --negatives. "
        "Nothing was written."
    )


def _provenance(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of FILE.meta.json except columns and final counts."""
    from spectra_nsa.core.results import environment

    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"schema": 1, "created": created, **facts, "environment": environment()}
