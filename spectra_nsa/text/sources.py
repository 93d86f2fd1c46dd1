"""One entry point for every source of text: a file, a folder, a Hugging Face dataset or the Python environment."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.core.files import expand_user
from spectra_nsa.text import beir
from spectra_nsa.text.file_set import read_file_set
from spectra_nsa.text.quarantine import Quarantine
from spectra_nsa.text.readers import cornstack, hub
from spectra_nsa.text.readers.records import (
    FORMATS,
    PLAIN_TEXT,
    file_format,
    is_plain_text,
    read_records,
    separator_notes,
)
from spectra_nsa.text.row_cache import RowCacheEntry
from spectra_nsa.text.rows import Problem, Record, TextSet
from spectra_nsa.text.table import build_table
from spectra_nsa.text.values import BadValue, document_text, has_unusable_title

_SPLIT_NAME = re.compile(r"(train|validation|valid|val|dev|test|eval)(?=[-_.]|$)")


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options of `load_source`."""

    columns: Mapping[str, str] | None
    split: str | None
    limit: int | None
    negatives: int | None
    quarantine: Path | None


def load_source(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    negatives: int | None = None,
    quarantine: Path | None = None,
) -> TextSet:
    """Reads and checks texts from any source.

    Args:
        source: a JSON Lines, CSV, TSV (each also `.gz`, `.zst`) or Parquet file; a folder of such files; a plain text
            file (.txt, .md, .rst) with one text per line; a BEIR folder (its corpus); a Hugging Face dataset
            ``org/name[:config[:split]]`` or a local copy of one; ``python:stdlib``, ``python:installed`` or
            ``python:numpy,scipy`` for docstrings with their functions; ``cornstack:python,go`` for CoRNStack.
        columns: role → column, such as ``{"anchor": "title"}``; missing roles are detected. ``None`` detects all.
        split: the split of a folder or dataset; ``None`` reads train if there is one.
        limit: the number of good rows to read, where each item of a list of positives is a row; ``None`` reads all.
        negatives: the most negatives of a row; 0 reads triplets as pairs, ``None`` reads up to eight.
        quarantine: a folder for the quarantined rows; ``None`` counts them and keeps the first few.

    Raises:
        SpectraError: the source does not exist, is damaged or has no usable row, or the roles of its columns cannot be
            detected.
        UsageError: `columns` names an unknown role, or options contradict each other.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}.")
    check_source(source)
    options = _Options(columns=columns, split=split, limit=limit, negatives=negatives, quarantine=quarantine)
    text = str(source)
    if text.startswith("python:"):
        return _from_python(text, options)
    if text.startswith(cornstack.PREFIX):
        return _from_cornstack(text, options)
    path = expand_user(text)
    if path.is_file():
        if split:
            raise UsageError(f"{path} is a single file and has no split {split!r}. Drop the split or pass the folder.")
        return _table(read_file_set([path], columns, negatives), [path], _short_name(path), str(path), options)
    folder, hub_name = _folder_or_hub(text, split)
    if hub_name is not None:
        return _from_hub(hub_name, options)
    assert folder is not None
    if beir.is_beir(folder):
        return _from_beir(folder, options)
    files, notes = _data_files(folder, split)
    return _table(read_file_set(files, columns, negatives), files, folder.resolve().name, str(folder), options, notes)


def check_source(source: str | Path) -> None:
    """Checks that a source exists, as far as possible without reading it or contacting the Hub.

    Raises:
        SpectraError: it does not exist.
        UsageError: it is empty, or no kind of source has such a name.
    """
    text = str(source)
    if not text.strip():
        raise UsageError("the source is empty: give a file, a folder, a Hugging Face dataset or python:stdlib.")
    if text.startswith(cornstack.PREFIX):
        cornstack.parse_languages(text)
        return
    path = expand_user(text)
    if not text.startswith("python:") and not path.is_file() and _folder_or_hub(text, None) == (None, None):
        raise _not_found(text, path)


def _folder_or_hub(text: str, split: str | None) -> tuple[Path | None, hub.HubName | None]:
    """Returns the plain folder or the Hugging Face dataset that a source names; both ``None`` if it names neither."""
    head, *rest = text.split(":")
    full, first = expand_user(text), expand_user(head)
    folder = full if full.is_dir() else first if head and first.is_dir() and len(rest) in (1, 2) else None
    if folder is not None:
        config, named = ([*rest, "", ""][:2]) if folder is not full else ("", "")
        if hub.is_hub_folder(folder):
            name = hub.HubName(path=str(folder), config=config or None, split=named or None)
            return None, name.with_split(split)
        if folder is full:
            return folder, None
        raise UsageError(f"{folder} is a plain folder without configurations. Use --split to choose a split, not ':'.")
    name_or_none = None if file_format(head) or is_plain_text(head) else hub.parse(text)
    return None, None if name_or_none is None else name_or_none.with_split(split)


def _not_found(text: str, path: Path) -> SpectraError:
    if text.startswith("python"):
        return unknown_name("source", text, ("python:stdlib", "python:installed", "python:PACKAGE,PACKAGE"))
    names = sorted(item.name for item in path.parent.iterdir()) if path.parent.is_dir() else []
    neighbors = [name for name in names if not name.startswith(".")]
    near = difflib.get_close_matches(path.name, neighbors, n=1)
    where = "The current folder" if path.parent == Path() else path.parent
    shown = ", ".join([*neighbors[:5], *(["…"] if len(neighbors) > 5 else [])])
    existing = f" Did you mean {path.with_name(near[0])}?" if near else f" {where} contains: {shown}." if shown else ""
    return SpectraError(
        f"{text} does not exist.{existing} A source is a file ({', '.join((*FORMATS, *PLAIN_TEXT))}), a folder of "
        "files, a Hugging Face dataset org/name:config:split, python:stdlib, python:installed, python:PACKAGE, or "
        "cornstack:LANGUAGE."
    )


def _short_name(path: Path) -> str:
    stem = path.name.split(".")[0]
    return f"{path.resolve().parent.name}-{stem}" if _SPLIT_NAME.fullmatch(stem) else stem


def _data_files(folder: Path, split: str | None) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the files of one split, and notes.

    The split is `split`, otherwise train. A folder whose files are not named after splits is read as a whole.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and file_format(path) and path.name[0] != ".")
    if not files:
        raise SpectraError(
            f"{folder} contains no data files. Supported extensions: {', '.join(FORMATS)}; all except .parquet also "
            "with .gz or .zst."
        )
    stems = {path: path.name.split(".")[0] for path in files}
    splits = {path: match[1] if (match := _SPLIT_NAME.match(stem)) else None for path, stem in stems.items()}
    names = sorted({splits[path] or stems[path] for path in files})
    wanted = split or ("train" if "train" in splits.values() else None)
    selected = [path for path in files if wanted in (None, splits[path], stems[path])]
    if not selected:
        raise SpectraError(f"{folder} has no split {split!r}. Available: {', '.join(names)}.")
    others = [path.name for path in files if path not in selected]
    if not others:
        return selected, ()
    return selected, (f"read {', '.join(path.name for path in selected)}; not read: {', '.join(others)}",)


def _table(
    records: Iterable[Record | Problem], files: Sequence[Path], name: str, source: str, options: _Options,
    notes: tuple[str, ...] = (), labels: Mapping[str, list[str]] | None = None,
    late_notes: Callable[[], tuple[str, ...]] = tuple,
) -> TextSet:  # fmt: skip
    """Returns the checked rows: from the cache if the same files were read before, otherwise from `records`."""
    columns, limit, negatives = options.columns, options.limit, options.negatives
    notes += separator_notes(files)
    key = [source, [(path, path.resolve()) for path in files], columns, limit, negatives, notes, labels]
    ranked = cornstack.RankedRows(records, source)
    with (
        RowCacheEntry(key, files) as entry,
        Quarantine(source, options.quarantine, entry.refused) as refused,
    ):
        if (cached := entry.load(refused)) is not None:
            dataset, facts = cached
            return TextSet(
                name=name, kind=facts["kind"], dataset=dataset, quarantined=refused.count,
                quarantine_file=refused.path, problems=tuple(refused.first), notes=tuple(facts["notes"]),
                digest=entry.digest, label_names=labels or {},
            )  # fmt: skip
        return build_table(
            ranked, name=name, file=source, columns=columns, limit=limit, negatives=negatives, quarantine=refused,
            entry=entry, label_names=labels, notes=notes, late_notes=lambda: (*late_notes(), *ranked.notes()),
        )  # fmt: skip


def _from_beir(folder: Path, options: _Options) -> TextSet:
    """Reads the corpus of a BEIR folder as texts, titles included."""
    corpus = beir.find(folder, "corpus.jsonl")
    assert corpus is not None
    if options.split:
        raise UsageError(f"{folder} is a BEIR folder; its corpus has no split {options.split!r}. Drop the split.")
    notes = (f"read {corpus.name} of a BEIR folder: title and text",)
    records = _WithTitles(read_records(corpus), enabled=not options.columns)
    return _table(records, [corpus], folder.resolve().name, str(corpus), options, notes, late_notes=records.notes)


class _WithTitles:
    """The records of a corpus with the title as part of the text, unless the columns are mapped."""

    def __init__(self, records: Iterable[Record | Problem], *, enabled: bool) -> None:
        self._records, self._enabled = records, enabled
        self._bad_titles = 0

    def notes(self) -> tuple[str, ...]:
        return beir.title_notes(self._bad_titles)

    def __iter__(self) -> Iterator[Record | Problem]:
        for item in self._records:
            if not self._enabled or isinstance(item, Problem) or "text" not in item.values:
                yield item
                continue
            try:
                text: object = document_text(item.values)
                self._bad_titles += has_unusable_title(item.values)
            except BadValue:
                text = item.values["text"]  # the table refuses it with the reason
            rest = {key: value for key, value in item.values.items() if key not in ("title", "text")}
            yield Record(item.line, {"text": text, **rest}, item.file)


def _from_hub(name: hub.HubName, options: _Options) -> TextSet:
    records, files, labels, split = hub.hub_records(name, options.limit)
    notes = () if name.split else (f"split {split}",)
    short = ":".join(filter(None, (Path(name.path).name, name.config)))
    return _table(records, files, short, str(name), options, notes, labels)


def _from_cornstack(text: str, options: _Options) -> TextSet:
    if options.split not in (None, "train"):
        raise UsageError(f"{text} has only the split train: drop the split {options.split!r}.")
    languages = cornstack.parse_languages(text)
    name = "-".join(["cornstack", *languages])
    return _table(cornstack.cornstack_records(languages), [], name, text, options)


def _from_python(text: str, options: _Options) -> TextSet:
    from spectra_nsa.text.readers.python_env import environment_pairs

    if options.columns or options.split:
        raise UsageError(f"{text} has fixed columns (anchor, positive) and no splits: drop --columns and --split.")
    names = [name.strip() for name in text.removeprefix("python:").split(",") if name.strip()]
    if not names:
        raise _not_found("python:", Path())
    packages = names[0] if names in (["stdlib"], ["installed"]) else names
    return environment_pairs(packages, limit=options.limit, quarantine=options.quarantine)
