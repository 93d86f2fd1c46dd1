"""Retrieval tasks in the BEIR form: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.quarantine import Quarantine, file_name, printable
from spectra_nsa.text.readers.lines import read_lines
from spectra_nsa.text.readers.records import Record, read_records
from spectra_nsa.text.rows import Problem, RetrievalSet, TextSet
from spectra_nsa.text.table import BadValue, document_text, text_value

_ENDINGS = ("", ".gz", ".zst")


def find(folder: str | Path, name: str) -> Path | None:
    """The file `name` in the folder, plain or compressed; ``None`` where there is none."""
    return next((path for ending in _ENDINGS if (path := Path(folder) / f"{name}{ending}").is_file()), None)


def is_beir(folder: str | Path) -> bool:
    """Whether a folder is laid out like a BEIR task."""
    return find(folder, "corpus.jsonl") is not None


def load_beir(folder: str | Path, split: str | None = None, *, quarantine: Path | None = None) -> RetrievalSet:
    """Reads a BEIR folder.

    Args:
        folder: holds `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and `qrels/SPLIT.tsv`
            (query id, document id, score; a header is optional).
        split: which judgements; ``None`` takes test, else dev, else the only ones there.
        quarantine: a folder for the broken lines; ``None`` only counts them.

    Raises:
        SpectraError: a file is missing, or no judgement names a known query and document.
    """
    folder = Path(folder)
    split, judgements = _split(folder, split)
    with Quarantine(_refused(folder, split), quarantine) as refused:
        corpus = _texts(_needed(folder, "corpus.jsonl"), refused, title=True)
        queries = _texts(_needed(folder, "queries.jsonl"), refused, title=False)
        qrels: dict[str, dict[str, int]] = {}
        missing = 0
        for query, document, relevance in _judgements(judgements, refused):
            if query in queries and document in corpus:
                qrels.setdefault(query, {})[document] = relevance
            else:
                missing += 1
    qrels, notes = _answerable(qrels)
    if not qrels:
        raise SpectraError(
            f"{judgements}: no judgement names a relevant document for a known query ({missing:,} name an unknown id). "
            "The ids must be the _id of corpus.jsonl and queries.jsonl."
        )
    empty = sum(not text for text in corpus.values())
    notes += (f"{empty:,} documents of the corpus are empty",) if empty else ()
    return RetrievalSet(
        name=folder.resolve().name, corpus=corpus, queries={query: queries[query] for query in qrels}, qrels=qrels,
        split=split, missing=missing, quarantined=refused.count, problems=tuple(refused.first), notes=notes,
    )  # fmt: skip


def judged_pairs(
    folder: str | Path, split: str | None = None, *, limit: int | None = None, quarantine: Path | None = None
) -> TextSet:
    """Each query of a BEIR folder with each of its relevant documents, as pairs.

    Args:
        folder: see `load_beir`.
        split: which judgements; ``None`` takes train, else what `load_beir` takes, and a note says which.
        limit: at most so many pairs; ``None`` for all.
        quarantine: a folder for the broken lines; ``None`` only counts them.

    Raises:
        SpectraError: as `load_beir`.
    """
    from datasets import Dataset

    if split is None and find(Path(folder) / "qrels", "train.tsv") is not None:
        split = "train"
    data = load_beir(folder, split, quarantine=quarantine)
    rows = [
        {"anchor": data.queries[query], "positive": data.corpus[document]}
        for query, judged in data.qrels.items()
        for document, relevance in judged.items()
        if relevance > 0 and data.corpus[document]
    ][:limit]
    if not rows:
        raise SpectraError(f"{folder}: every relevant document is empty.")
    read = (
        f"the judgements of split {data.split}: each query with each relevant document; the corpus are candidates too"
    )
    aside = None if quarantine is None or not data.quarantined else quarantine / file_name(_refused(folder, data.split))
    return TextSet(
        name=data.name, kind="pairs", dataset=Dataset.from_list(rows), quarantined=data.quarantined,
        quarantine_file=aside, problems=data.problems, notes=(read, *data.notes),
    )  # fmt: skip


def _refused(folder: str | Path, split: str) -> str:
    """What the file of the broken lines is named after."""
    return str(Path(folder) / f"beir-{split}")


def _needed(folder: Path, name: str) -> Path:
    path = find(folder, name)
    if path is None:
        what = "does not exist" if not folder.exists() else f"has no {name} (or {name}.gz)"
        raise SpectraError(f"{folder} {what}. A BEIR folder holds corpus.jsonl, queries.jsonl and qrels/test.tsv.")
    return path


def _split(folder: Path, split: str | None) -> tuple[str, Path]:
    """The judgements' split and file."""
    files = {
        path.name.split(".tsv")[0]: path
        for path in sorted((folder / "qrels").glob("*.tsv*"))
        if path.name.endswith(tuple(f".tsv{ending}" for ending in _ENDINGS))
    }
    if not files:
        return "test", _needed(folder, "qrels/test.tsv")
    if split is None:
        split = next((name for name in ("test", "dev") if name in files), None)
        split = next(iter(files)) if split is None and len(files) == 1 else split
    if split is None or split not in files:
        wanted = "several splits" if split is None else f"no split {split!r}"
        raise SpectraError(f"{folder / 'qrels'}: {wanted}. There are: {', '.join(files)}. Choose one with split.")
    return split, files[split]


def _texts(path: Path, refused: Quarantine, *, title: bool) -> dict[str, str]:
    """Id → text; a document may be empty, a query may not."""
    texts: dict[str, str] = {}
    for item in read_records(path):
        if isinstance(item, Problem):
            refused.add(item)
            continue
        try:
            key = _id(item)
            if key in texts:
                raise BadValue("_id", f"the id {key!r} is there already")
            texts[key] = document_text(item.values) if title else text_value(item.values.get("text"), "text")
        except BadValue as bad:
            raw = printable(item.values)
            refused.add(Problem(file=str(path), line=item.line, column=bad.column, reason=str(bad), raw=raw))
    return texts


def _id(record: Record) -> str:
    value = record.values.get("_id", record.values.get("id"))
    return str(value) if isinstance(value, int) else text_value(value, "_id")


def _judgements(path: Path, refused: Quarantine) -> Iterator[tuple[str, str, int]]:
    """(query id, document id, relevance) of a file with three columns, or of TREC's four."""
    for line in read_lines(path):
        parts = line.data.decode("utf-8", "replace").strip("\r\n").split("\t")
        parts = parts if len(parts) > 1 else parts[0].split()
        if not parts:
            continue
        if len(parts) not in (3, 4):
            reason = f"{len(parts)} fields where query id, document id and score are needed"
        else:
            try:
                yield parts[0], parts[-2], int(float(parts[-1]))
                continue
            except (ValueError, OverflowError):
                reason = "the score is not a number"
            if line.number == 1:
                continue  # the header
        raw = printable(line.data)
        refused.add(Problem(file=str(path), line=line.number, column=None, reason=reason, raw=raw))


def _answerable(qrels: dict[str, dict[str, int]]) -> tuple[dict[str, dict[str, int]], tuple[str, ...]]:
    kept = {query: judged for query, judged in qrels.items() if any(score > 0 for score in judged.values())}
    dropped = len(qrels) - len(kept)
    return kept, (f"{dropped:,} queries without a relevant document were left out",) if dropped else ()
