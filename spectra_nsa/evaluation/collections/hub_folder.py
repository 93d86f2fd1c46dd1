"""Retrieval collections in the layouts of the Hugging Face Hub: corpus, queries and qrels as Parquet or JSON Lines.

Layouts, where FILE is a shard such as ``test-00000-of-00001.parquet`` or ``test.jsonl``:

- ``corpus/NAME-….parquet``, ``queries/NAME-…``, ``qrels/NAME-…``: several sets in one folder (NanoBEIR-en)
- ``corpus/FILE``, ``queries/FILE``, ``qrels/FILE`` or ``default/FILE``: one set (NanoMSMARCO, mteb, CoIR)
- ``python-corpus/FILE``, ``python-queries/FILE``, ``python-qrels/FILE``: one set for each prefix (mteb)
- ``corpus.jsonl``, ``queries.jsonl``, ``qrels/test.jsonl``; and BEIR's own folder
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, unknown_name
from spectra_nsa.text.beir import find, is_beir, load_beir
from spectra_nsa.text.readers.records import file_format, read_records
from spectra_nsa.text.rows import Problem, Record, RetrievalSet
from spectra_nsa.text.values import BadValue, document_text, grade_value, id_value, text_value

_SPLITS = ("test", "dev", "validation", "valid", "train")
_TABLE = re.compile(r"(?:(?P<set>.+)[-_])?(?P<table>corpus|queries|query|qrels|default)")
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")
_TABLES = {"query": "queries", "default": "qrels"}


@dataclass
class Collection:
    """The files of one set.

    Attributes:
        name: its name.
        corpus: the files of its documents.
        queries: the files of its queries.
        qrels: split → files of judgments.
        beir: its folder, if it is in BEIR's own layout.
    """

    name: str
    corpus: list[Path] = field(default_factory=list)
    queries: list[Path] = field(default_factory=list)
    qrels: dict[str, list[Path]] = field(default_factory=dict)
    beir: Path | None = None


def find_collections(folder: Path) -> list[Collection]:
    """Returns the sets in a folder, or in its subfolders, in alphabetical order.

    Raises:
        SpectraError: there are none.
    """
    found = _collections(folder)
    if not found:
        found = [one for part in sorted(folder.iterdir()) if part.is_dir() for one in _collections(part)]
    if not found:
        raise SpectraError(
            f"{folder} has no retrieval set: corpus, queries and qrels as in BEIR (corpus.jsonl, queries.jsonl, "
            "qrels/test.tsv) or as on the Hub (corpus/, queries/ and qrels/ with .parquet or .jsonl files)."
        )
    return found


def choose(collections: Sequence[Collection], names: str | None) -> list[Collection]:
    """Returns the sets of comma-separated names, in any case and with or without "Nano"; ``None`` chooses all.

    Raises:
        UsageError: a name is unknown.
    """
    if names is None:
        return list(collections)
    known = {_plain(one.name): one for one in collections}
    chosen = []
    for name in names.split(","):
        if _plain(name) not in known:
            raise unknown_name("set", name, [one.name for one in collections])
        chosen.append(known[_plain(name)])
    return chosen


def load_collection(one: Collection, split: str | None = None) -> RetrievalSet:
    """Reads a set. Judgments without a column `score` have the grade 1.

    Args:
        one: from `find_collections`.
        split: the split of the judgments; ``None`` reads test, otherwise dev, otherwise the only split.

    Raises:
        SpectraError: a file cannot be read, or no judgment names a known query and a relevant document.
    """
    if one.beir is not None:
        return load_beir(one.beir, split)
    split, files = _split(one, split)
    bad: list[str] = []
    corpus = {key: document_text(row.values) for key, row in _rows(one.corpus, bad, "_id", document_text)}
    queries = {key: text_value(row.values["text"], "text") for key, row in _rows(one.queries, bad, "_id", _text)}
    qrels: dict[str, dict[str, int]] = {}
    missing = 0
    for query, row in _rows(files, bad, "query-id", _judgment):
        documents, grade = _judgment(row.values)
        for document in documents:
            if query in queries and document in corpus:
                qrels.setdefault(query, {})[document] = grade
            else:
                missing += 1
    qrels = {query: judged for query, judged in qrels.items() if any(grade > 0 for grade in judged.values())}
    if not qrels:
        raise SpectraError(
            f"{one.name}: no judgment of split {split} pairs a known query with a relevant document "
            f"({counted(missing, 'judgment')} with an unknown id)."
        )
    notes = (f"{counted(len(bad), 'row')} left out, such as {bad[0]}",) if bad else ()
    return RetrievalSet(
        name=one.name, corpus=corpus, queries={query: queries[query] for query in qrels}, qrels=qrels, split=split,
        missing=missing, notes=notes,
    )  # fmt: skip


def load_folder(folder: Path, split: str | None = None) -> RetrievalSet:
    """Reads the only set of a folder, see `load_collection`.

    Raises:
        SpectraError: it has several sets.
    """
    found = find_collections(folder)
    if len(found) > 1:
        raise SpectraError(f"{folder} has several retrieval sets ({', '.join(one.name for one in found)}): name one.")
    return load_collection(found[0], split)


def _collections(folder: Path) -> list[Collection]:
    if is_beir(folder) and list((folder / "qrels").glob("*.tsv*")):
        return [Collection(name=folder.resolve().name, beir=folder)]
    sets: dict[str, Collection] = {}
    loose: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if not path.is_file() or file_format(path) is None:
            continue
        stem = _SHARD.sub("", path.name).split(".")[0]
        in_folder = None if path.parent == folder else _TABLE.fullmatch(path.parent.name)
        match = in_folder or _TABLE.fullmatch(stem)
        if match is None:
            if stem in _SPLITS:
                loose.setdefault(stem, []).append(path)
            continue
        table = _TABLES.get(match["table"], match["table"])
        is_set = in_folder is not None and stem not in (*_SPLITS, match["table"], table)
        one = sets.setdefault(name := stem if is_set else match["set"] or "", Collection(name=name))
        if table == "qrels":
            one.qrels.setdefault(stem if stem in _SPLITS else "test", []).append(path)
        else:
            (one.corpus if table == "corpus" else one.queries).append(path)
    for one in sets.values():
        one.name = one.name or folder.resolve().name
        one.qrels = one.qrels or loose
    return [one for one in sets.values() if one.corpus and one.queries and one.qrels]


def _split(one: Collection, split: str | None) -> tuple[str, list[Path]]:
    names = list(one.qrels)
    chosen = split or next((name for name in _SPLITS[:-1] if name in names), names[0])
    if chosen not in one.qrels:
        raise unknown_name(f"split of {one.name}", chosen, names)
    return chosen, one.qrels[chosen]


def _rows(
    files: Sequence[Path], bad: list[str], key: str, check: Callable[[dict[str, Any]], object]
) -> Iterator[tuple[str, Record]]:
    """Yields id and row of each usable row; the reasons of the others go into `bad`."""
    for path in files:
        for item in read_records(path):
            if isinstance(item, Problem):
                bad.append(f"{path.name}:{item.line}: {item.reason}")
                continue
            try:
                name = id_value(item.values.get(key, item.values.get("id")), key)
                check(item.values)
            except BadValue as problem:
                bad.append(f"{path.name}:{item.line}: {problem.column} {problem}")
                continue
            yield name, item


def _text(values: dict[str, object]) -> str:
    return text_value(values.get("text"), "text")


def _judgment(values: dict[str, object]) -> tuple[list[str], int]:
    """Returns the document ids of a judgment, which may be a list, and their grade."""
    documents = values.get("corpus-id")
    listed = documents if isinstance(documents, list) else [documents]
    score = values.get("score")
    return [id_value(name, "corpus-id") for name in listed], 1 if score is None else grade_value(str(score), "score")


def _plain(name: str) -> str:
    return name.lower().removeprefix("nano")


def is_collection(folder: Path) -> bool:
    """Returns whether a folder itself, not a subfolder, holds a retrieval set in any layout."""
    return folder.is_dir() and (find(folder, "corpus.jsonl") is not None or bool(_collections(folder)))
