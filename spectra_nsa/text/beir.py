"""Retrieval tasks in the BEIR format: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`, plain or compressed."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.strings import comparable
from spectra_nsa.text.quarantine import Quarantine, file_name
from spectra_nsa.text.readers.lines import Line, line_problem, read_lines, text_record
from spectra_nsa.text.readers.records import read_records
from spectra_nsa.text.rows import Problem, RetrievalSet, TextSet
from spectra_nsa.text.table import bad_value_problem
from spectra_nsa.text.values import BadValue, document_text, grade_value, has_unusable_title, id_value, text_value

if TYPE_CHECKING:
    from datasets import Dataset

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
            (query id, document id, grade; a header is optional). Grades are whole numbers; other lines are quarantined,
            as is a judgment that contradicts an earlier one.
        split: the split of the judgments; ``None`` reads test, otherwise dev, otherwise the only split.
        quarantine: a folder for the quarantined lines; ``None`` only counts them.

    Raises:
        SpectraError: a file is missing, or no judgment names a known query with a relevant document.
    """
    folder = Path(folder)
    split, judgments = _split(folder, split)
    with Quarantine(_quarantine_name(folder, split), quarantine) as refused:
        corpus, bad_titles = _texts(_required(folder, "corpus.jsonl"), refused, title=True)
        queries, _ = _texts(_required(folder, "queries.jsonl"), refused, title=False)
        given, missing, first_refused = _judgments(judgments, queries, corpus, refused)
    qrels, notes = _answerable(given)
    if not qrels:
        raise _nothing_relevant(judgments, missing, first_refused)
    empty = sum(not text for text in corpus.values())
    notes += (f"{counted(empty, 'empty document')} in the corpus",) if empty else ()
    notes += title_notes(bad_titles)
    return RetrievalSet(
        name=folder.resolve().name, corpus=corpus, queries={query: queries[query] for query in qrels}, qrels=qrels,
        split=split, missing=missing, quarantined=refused.count, problems=tuple(refused.first), notes=notes,
    )  # fmt: skip


def title_notes(count: int) -> tuple[str, ...]:
    """Returns a note on titles that are not text; none if there are none."""
    return (f"{counted(count, 'title')} left out: not text (NaN, for example)",) if count else ()


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


def known_answers(folder: str | Path) -> Dataset:
    """Reads what is not wrong for the queries of a BEIR folder, as rows of `anchor` and `positive`.

    These are each query with every document that some split judges relevant, and with the document that is the query
    itself (`is_own_document`).

    Raises:
        SpectraError: a file is missing.
    """
    from datasets import Dataset

    folder = Path(folder)
    with Quarantine(str(folder), None) as refused:
        corpus, _ = _texts(_required(folder, "corpus.jsonl"), refused, title=True)
        queries, _ = _texts(_required(folder, "queries.jsonl"), refused, title=False)
        pairs = {(query, query) for query, text in queries.items() if is_own_document(text, corpus.get(query))}
        for path in _split_files(folder).values():
            judged, _, _ = _judgments(path, queries, corpus, refused)
            pairs |= {(query, name) for query, grades in judged.items() for name, grade in grades.items() if grade > 0}
    found = [(queries[query], corpus[document]) for query, document in sorted(pairs) if corpus[document]]
    anchors, positives = zip(*found, strict=True) if found else ((), ())
    return Dataset.from_dict({"anchor": anchors, "positive": positives})


def is_own_document(query: str, document: str | None) -> bool:
    """Returns whether the document of a query's id is the query itself, as in ArguAna and Quora.

    BEIR ignores every document with the query's id. The texts are compared too, because queries and documents may be
    numbered independently: the document must contain the query. ``None`` stands for no such document.
    """
    return document is not None and comparable(query) in comparable(document)


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
    files = _split_files(folder)
    if not files:
        return "test", _required(folder, "qrels/test.tsv")
    if split is None:
        split = next((name for name in ("test", "dev") if name in files), None)
        split = next(iter(files)) if split is None and len(files) == 1 else split
    if split is None or split not in files:
        problem = "several splits" if split is None else f"no split {split!r}"
        raise SpectraError(f"{folder / 'qrels'}: {problem}. Choose one of: {', '.join(files)}.")
    return split, files[split]


def _split_files(folder: Path) -> dict[str, Path]:
    """Returns the files of judgments by split."""
    return {
        path.name.split(".tsv")[0]: path
        for path in sorted((folder / "qrels").glob("*.tsv*"))
        if path.name.endswith(tuple(f".tsv{suffix}" for suffix in _COMPRESSIONS))
    }


def _texts(path: Path, refused: Quarantine, *, title: bool) -> tuple[dict[str, str], int]:
    """Returns id → text, and the number of titles left out. A document may be empty, a query may not."""
    texts: dict[str, str] = {}
    bad_titles = 0
    for item in read_records(path):
        if isinstance(item, Problem):
            refused.add(item)
            continue
        try:
            key = id_value(item.values.get("_id", item.values.get("id")), "_id")
            if key in texts:
                raise BadValue("_id", f"duplicate id {key!r}")
            texts[key] = document_text(item.values) if title else text_value(item.values.get("text"), "text")
        except BadValue as bad:
            refused.add(bad_value_problem(item, bad))
            continue
        bad_titles += title and has_unusable_title(item.values)
    return texts, bad_titles


def _judgments(
    path: Path, queries: Container[str], corpus: Container[str], refused: Quarantine
) -> tuple[dict[str, dict[str, int]], int, Problem | None]:
    """Returns the judgments of known ids, the number of those with an unknown one, and the first refused line."""
    qrels: dict[str, dict[str, int]] = {}
    missing, first_refused = 0, None
    for item in _judgment_lines(path):
        if isinstance(item, Problem):
            problem = item
        else:
            line, query, document, grade = item
            query, document = _stored_id(query, queries), _stored_id(document, corpus)
            if query not in queries or document not in corpus:
                missing += 1
                continue
            if (earlier := qrels.setdefault(query, {}).setdefault(document, grade)) == grade:
                continue
            reason = f"{document} was judged {earlier} for {query} before, and {grade} here; the first is used"
            problem = line_problem(path, line, reason)
        refused.add(problem)
        first_refused = first_refused or problem
    return qrels, missing, first_refused


def _stored_id(name: str, known: Container[str]) -> str:
    """Returns an id as the texts have it: 7.0, as tools write whole numbers beside missing ones, is 7."""
    number = name.removesuffix(".0")
    return number if number.isdigit() and name not in known else name


def _judgment_lines(path: Path) -> Iterator[tuple[Line, str, str, int] | Problem]:
    """Yields line, query id, document id and grade from a file of three columns, or of four as in TREC."""
    for line in read_lines(path):
        item = text_record(path, line)
        if isinstance(item, Problem):
            yield item
            continue
        text = item.values["text"]
        parts = text.split("\t") if "\t" in text else text.split()
        if not parts or (line.number == 1 and not _is_number(parts[-1])):  # an empty line; the header
            continue
        if len(parts) not in (3, 4):
            yield line_problem(path, line, f"{len(parts)} fields; expected query id, document id and grade")
            continue
        try:
            yield line, parts[0], parts[-2], grade_value(parts[-1], "grade")
        except BadValue as bad:
            yield line_problem(path, line, str(bad))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _nothing_relevant(judgments: Path, missing: int, first_refused: Problem | None) -> SpectraError:
    refused = ""
    if first_refused is not None:
        refused = f" Lines were quarantined; the first is line {first_refused.line}: {first_refused.reason}."
    return SpectraError(
        f"{judgments}: no judgment pairs a known query with a relevant document "
        f"({counted(missing, 'judgment')} with an unknown id). The ids must match "
        f"the _id values of corpus.jsonl and queries.jsonl.{refused}"
    )


def _answerable(qrels: dict[str, dict[str, int]]) -> tuple[dict[str, dict[str, int]], tuple[str, ...]]:
    """Returns the queries with a relevant document, and a note on the dropped ones."""
    kept = {query: judged for query, judged in qrels.items() if any(score > 0 for score in judged.values())}
    dropped = len(qrels) - len(kept)
    return kept, (f"{counted(dropped, 'query')} without a relevant document dropped",) if dropped else ()
