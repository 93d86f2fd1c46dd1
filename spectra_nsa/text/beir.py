"""Retrieval tasks in the BEIR format: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.quarantine import Quarantine, file_name
from spectra_nsa.text.readers.lines import line_problem, read_lines
from spectra_nsa.text.readers.records import read_records
from spectra_nsa.text.rows import Problem, Record, RetrievalSet, TextSet
from spectra_nsa.text.table import bad_value_problem
from spectra_nsa.text.values import BadValue, document_text, text_value

_COMPRESSIONS = ("", ".gz", ".zst")


def find(folder: str | Path, name: str) -> Path | None:
    """Returns the file `name` of a folder, plain or compressed; ``None`` if there is none."""
    return next((path for suffix in _COMPRESSIONS if (path := Path(folder) / f"{name}{suffix}").is_file()), None)


def is_beir(folder: str | Path) -> bool:
    """Returns whether a folder has the layout of a BEIR task."""
    return find(folder, "corpus.jsonl") is not None


def load_beir(folder: str | Path, split: str | None = None, *, quarantine: Path | None = None) -> RetrievalSet:
    """Reads a BEIR folder.

    Args:
        folder: contains `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and `qrels/SPLIT.tsv`
            (query id, document id, score; a header is optional).
        split: the split of the judgments; ``None`` reads test, otherwise dev, otherwise the only split.
        quarantine: a folder for the quarantined lines; ``None`` only counts them.

    Raises:
        SpectraError: a file is missing, or no judgment names a known query with a relevant document.
    """
    folder = Path(folder)
    split, judgments = _split(folder, split)
    with Quarantine(_quarantine_name(folder, split), quarantine) as refused:
        corpus = _texts(_required(folder, "corpus.jsonl"), refused, title=True)
        queries = _texts(_required(folder, "queries.jsonl"), refused, title=False)
        qrels: dict[str, dict[str, int]] = {}
        missing = 0
        for query, document, relevance in _judgments(judgments, refused):
            if query in queries and document in corpus:
                qrels.setdefault(query, {})[document] = relevance
            else:
                missing += 1
    qrels, notes = _answerable(qrels)
    if not qrels:
        raise SpectraError(
            f"{judgments}: no judgment pairs a known query with a relevant document ({missing:,} judgments name an "
            "unknown id). The ids must match the _id values of corpus.jsonl and queries.jsonl."
        )
    empty = sum(not text for text in corpus.values())
    notes += (f"{counted(empty, 'empty document')} in the corpus",) if empty else ()
    return RetrievalSet(
        name=folder.resolve().name, corpus=corpus, queries={query: queries[query] for query in qrels}, qrels=qrels,
        split=split, missing=missing, quarantined=refused.count, problems=tuple(refused.first), notes=notes,
    )  # fmt: skip


def judged_pairs(
    folder: str | Path, split: str | None = None, *, limit: int | None = None, quarantine: Path | None = None
) -> TextSet:
    """Reads each query of a BEIR folder with each of its relevant documents, as pairs.

    Args:
        folder: see `load_beir`.
        split: the split of the judgments; ``None`` reads train if it exists, otherwise the default of `load_beir`. A
            note names the split.
        limit: the maximum number of pairs; ``None`` for all.
        quarantine: a folder for the quarantined lines; ``None`` only counts them.

    Raises:
        SpectraError: as `load_beir`, or every relevant document is empty.
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
        raise SpectraError(f"{folder}: every relevant document is empty. Fill in text or title in corpus.jsonl.")
    note = (
        f"pairs from the judgments of split {data.split}: each query with each relevant document; all documents of the "
        "corpus are candidates"
    )
    quarantine_file = None
    if quarantine is not None and data.quarantined:
        quarantine_file = quarantine / file_name(_quarantine_name(folder, data.split))
    return TextSet(
        name=data.name, kind="pairs", dataset=Dataset.from_list(rows), quarantined=data.quarantined,
        quarantine_file=quarantine_file, problems=data.problems, notes=(note, *data.notes),
    )  # fmt: skip


def _quarantine_name(folder: str | Path, split: str) -> str:
    """Returns the source name that gives the file of quarantined lines its name."""
    return str(Path(folder) / f"beir-{split}")


def _required(folder: Path, name: str) -> Path:
    path = find(folder, name)
    if path is None:
        problem = "does not exist" if not folder.exists() else f"has no {name} (or {name}.gz)"
        raise SpectraError(
            f"{folder} {problem}. A BEIR folder contains corpus.jsonl, queries.jsonl and qrels/test.tsv."
        )
    return path


def _split(folder: Path, split: str | None) -> tuple[str, Path]:
    """Returns the split of the judgments and their file."""
    files = {
        path.name.split(".tsv")[0]: path
        for path in sorted((folder / "qrels").glob("*.tsv*"))
        if path.name.endswith(tuple(f".tsv{suffix}" for suffix in _COMPRESSIONS))
    }
    if not files:
        return "test", _required(folder, "qrels/test.tsv")
    if split is None:
        split = next((name for name in ("test", "dev") if name in files), None)
        split = next(iter(files)) if split is None and len(files) == 1 else split
    if split is None or split not in files:
        problem = "several splits" if split is None else f"no split {split!r}"
        raise SpectraError(f"{folder / 'qrels'}: {problem}. Choose one of: {', '.join(files)}.")
    return split, files[split]


def _texts(path: Path, refused: Quarantine, *, title: bool) -> dict[str, str]:
    """Returns id → text. A document may be empty, a query may not."""
    texts: dict[str, str] = {}
    for item in read_records(path):
        if isinstance(item, Problem):
            refused.add(item)
            continue
        try:
            key = _id(item)
            if key in texts:
                raise BadValue("_id", f"duplicate id {key!r}")
            texts[key] = document_text(item.values) if title else text_value(item.values.get("text"), "text")
        except BadValue as bad:
            refused.add(bad_value_problem(item, bad))
    return texts


def _id(record: Record) -> str:
    value = record.values.get("_id", record.values.get("id"))
    return str(value) if isinstance(value, int) else text_value(value, "_id")


def _judgments(path: Path, refused: Quarantine) -> Iterator[tuple[str, str, int]]:
    """Yields (query id, document id, relevance) from a file of three columns, or of four as in TREC."""
    for line in read_lines(path):
        parts = line.data.decode("utf-8", "replace").strip("\r\n").split("\t")
        parts = parts if len(parts) > 1 else parts[0].split()
        if not parts:
            continue
        if len(parts) not in (3, 4):
            reason = f"{len(parts)} fields; expected query id, document id and score"
        else:
            try:
                yield parts[0], parts[-2], int(float(parts[-1]))
                continue
            except (ValueError, OverflowError):
                reason = "the score is not a number"
            if line.number == 1:
                continue  # the header
        refused.add(line_problem(path, line, reason))


def _answerable(qrels: dict[str, dict[str, int]]) -> tuple[dict[str, dict[str, int]], tuple[str, ...]]:
    """Returns the queries with a relevant document, and a note on the dropped ones."""
    kept = {query: judged for query, judged in qrels.items() if any(score > 0 for score in judged.values())}
    dropped = len(qrels) - len(kept)
    return kept, (f"{counted(dropped, 'query')} without a relevant document dropped",) if dropped else ()
