"""The anchors and documents that are mined, read from the user's sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import expand_user
from spectra_nsa.workflows.mine.request import MiningRequest

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.text.rows import TextSet
    from spectra_nsa.workflows.mine.pool import MiningPool


class MiningSources(NamedTuple):
    """What was read.

    Attributes:
        pool: the numbered texts.
        counts: `rows`, `repeated`, `quarantined`, `anchors`, `documents`.
        notes: sentences about the data for the user.
    """

    pool: MiningPool
    counts: dict[str, int]
    notes: list[str]


def load_sources(request: MiningRequest, *, quarantine: Path | None) -> MiningSources:
    """Reads the pairs and the corpus.

    Args:
        request: names the sources.
        quarantine: a folder for quarantined rows; ``None`` writes none.

    Raises:
        SpectraError: the source does not hold pairs, or there is only one document.
    """
    from spectra_nsa.text.beir import is_beir, judged_pairs
    from spectra_nsa.text.sources import load_source
    from spectra_nsa.workflows.mine.pool import build_pool

    corpus, columns = request.corpus, dict(request.columns or {})
    text_column = columns.pop("text", None) if corpus is not None else None
    if not columns and is_beir(folder := expand_user(request.source)):
        pairs = judged_pairs(folder, request.split, limit=request.limit, quarantine=quarantine)
        corpus = request.source if corpus is None else corpus
    else:
        pairs = load_source(
            request.source, columns=columns, split=request.split, limit=request.limit, quarantine=quarantine
        )
    further = None if corpus is None else _load_corpus(corpus, columns, text_column, quarantine)
    answers, notes = _known_answers(request, columns, corpus, pairs)
    pool = build_pool(pairs, further, answers)
    repeated = int((~pool.first_R).sum())
    notes = [note for texts in (pairs, further) if texts is not None for note in _notes(texts)] + notes
    if more := len(pool.own_query_P) + repeated - len(pool.rows):
        notes.append(f"{counted(more, 'further known answer')} of these anchors, never a negative")
    if pairs.kind == "triplets":
        notes.append("the source's own negatives are not used")
    if repeated:
        notes.append(f"skipped {counted(repeated, 'row')} with the pair of an earlier row")
    counts = {
        "rows": len(pool.rows), "repeated": repeated, "quarantined": pairs.quarantined,
        "anchors": len(pool.queries), "documents": len(pool.documents),
    }  # fmt: skip
    return MiningSources(pool, counts, notes)


def _known_answers(
    request: MiningRequest, columns: dict[str, str], corpus: str | Path | None, pairs: TextSet
) -> tuple[list[Dataset], list[str]]:
    """Returns the right answers beside the pairs, and notes.

    They are the rows beyond the limit, and what the judgments of BEIR folders say, whatever their split.
    """
    from spectra_nsa.text.beir import find, is_beir, known_answers
    from spectra_nsa.text.sources import load_source

    folders = {Path(source).expanduser() for source in (request.source, corpus) if source is not None}
    judged = [known_answers(folder) for folder in sorted(folders) if is_beir(folder) and find(folder, "queries.jsonl")]
    beyond = request.limit is not None and not is_beir(Path(request.source).expanduser())
    if not beyond or len(pairs.dataset) < (request.limit or 0):
        return judged, []
    if _is_remote(request.source):
        return judged, ["rows beyond --limit are not read, so their positives may become negatives"]
    rest = load_source(request.source, columns=columns, split=request.split)
    return [*judged, rest.dataset], []


def _is_remote(source: str | Path) -> bool:
    """Returns whether a source is streamed from the Hub."""
    names = (str(source), str(source).split(":")[0])
    return names[1] != "python" and not any(Path(name).expanduser().exists() for name in names)


def _load_corpus(
    corpus: str | Path, columns: dict[str, str], text_column: str | None, quarantine: Path | None
) -> TextSet:
    """Reads the corpus: its `text` column by the mapping, or by the mapping of the pairs if it has their columns."""
    from spectra_nsa.text.columns import UnclearColumns
    from spectra_nsa.text.shared_columns import SharedColumns

    mapping = SharedColumns(columns if text_column is None else {"text": text_column})
    try:
        return mapping.load(corpus, quarantine=quarantine)
    except UnclearColumns as error:
        raise SpectraError(
            f"--corpus {corpus}: the column of its texts is unclear. Columns: {', '.join(error.available)}. Add "
            "text=COLUMN to --columns."
        ) from error


def _notes(texts: TextSet) -> list[str]:
    if not texts.quarantined:
        return [*texts.notes]
    first = texts.problems[0]
    copies = f"all are in {texts.quarantine_file}" if texts.quarantine_file else "no copy was written"
    skipped = f"{counted(texts.quarantined, 'row')} of {texts.name} quarantined"
    return [*texts.notes, f"{skipped}, the first on line {first.line}: {first.reason}; {copies}"]
