"""One door to every source of text: a file, a folder, a Hugging Face set, or the Python environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.text import beir
from spectra_nsa.text.quarantine import Quarantine
from spectra_nsa.text.readers import hub
from spectra_nsa.text.readers.records import FORMATS, PLAIN, Record, file_format, is_plain, read_records
from spectra_nsa.text.rows import Problem, TextSet
from spectra_nsa.text.several import read_several
from spectra_nsa.text.shelf import Shelf
from spectra_nsa.text.table import BadValue, build, document_text

_SPLIT_NAME = re.compile(r"(train|validation|valid|val|dev|test|eval)(?=[-_.]|$)")


def load_source(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    quarantine: Path | None = None,
) -> TextSet:
    """Reads texts from anywhere and says what was wrong with them.

    Args:
        source: a JSON Lines, CSV, TSV (each also `.gz`, `.zst`) or Parquet file; a folder of such files; a plain text
            file (.txt, .md, .rst), of which every line is a text; a BEIR folder
            (its corpus); a Hugging Face set ``org/name[:config[:split]]`` or its local copy; ``python:stdlib``,
            ``python:installed`` or ``python:numpy,scipy`` for docstrings with their functions.
        columns: role → column, such as ``{"anchor": "title"}``; what it leaves out is guessed. ``None`` guesses all.
        split: which split of a folder or set; ``None`` takes train where there is one.
        limit: how many good rows to read, of a list of positives a row for each; ``None`` reads all.
        quarantine: a folder for the refused rows; ``None`` counts them and keeps the first few.

    Raises:
        SpectraError: the source is not there, is damaged, has no usable row, or its columns' roles are unclear.
        UsageError: `columns` names an unknown role, or options contradict each other.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}.")
    check_source(source)
    text = str(source)
    if text.startswith("python:"):
        return _from_python(text, columns, split, limit, quarantine)
    path = Path(text).expanduser()
    if path.is_file():
        if split:
            raise UsageError(f"{path} is one file, so split {split!r} means nothing. Leave it out or name the folder.")
        return _from_files([path], _short_name(path), path, columns, limit, quarantine)
    folder, name = _folder(text, split)
    if name is not None:
        return _from_hub(name, columns, limit, quarantine)
    assert folder is not None
    if beir.is_beir(folder):
        return _from_beir(folder, columns, split, limit, quarantine)
    files, notes = _data_files(folder, split)
    return _from_files(files, folder.resolve().name, folder, columns, limit, quarantine, notes)


def check_source(source: str | Path) -> None:
    """That a source is there, so far as this can be told without reading it or asking the Hub.

    Raises:
        SpectraError: it is not.
        UsageError: it is empty, or a name that means nothing.
    """
    text = str(source)
    if not text.strip():
        raise UsageError("the source of texts is empty: name a file, a folder, a Hub set or python:stdlib.")
    path = Path(text).expanduser()
    if not text.startswith("python:") and not path.is_file() and _folder(text, None) == (None, None):
        raise _not_found(text, path)


def _folder(text: str, split: str | None) -> tuple[Path | None, hub.HubName | None]:
    """The plain folder or the Hugging Face set that a source names; both ``None`` when it is neither."""
    head, *rest = text.split(":")
    whole, part = Path(text).expanduser(), Path(head).expanduser()
    folder = whole if whole.is_dir() else part if head and part.is_dir() and len(rest) in (1, 2) else None
    if folder is not None:
        config, named = ([*rest, "", ""][:2]) if folder is not whole else ("", "")
        if hub.is_hub_folder(folder):
            name = hub.HubName(path=str(folder), config=config or None, split=named or None)
            return None, name.with_split(split)
        if folder is whole:
            return folder, None
        raise UsageError(f"{folder} is a plain folder without configurations. Choose a split with --split, not ':'.")
    name_or_none = None if file_format(head) or is_plain(head) else hub.parse(text)
    return None, None if name_or_none is None else name_or_none.with_split(split)


def _not_found(text: str, path: Path) -> SpectraError:
    if text.startswith("python"):
        return unknown_name("source", text, ("python:stdlib", "python:installed", "python:PACKAGE,PACKAGE"))
    names = sorted(item.name for item in path.parent.iterdir()) if path.parent.is_dir() else []
    near = [name for name in names if not name.startswith(".")][:8]
    beside = f" In {path.parent}: {', '.join(near)}." if near else ""
    return SpectraError(
        f"{text} does not exist.{beside} A source is a file ({', '.join((*FORMATS, *PLAIN))}), a folder of them, "
        "a Hugging Face set org/name:config:split, or python:stdlib, python:installed, python:PACKAGE."
    )


def _short_name(path: Path) -> str:
    stem = path.name.split(".")[0]
    return f"{path.resolve().parent.name}-{stem}" if _SPLIT_NAME.fullmatch(stem) else stem


def _data_files(folder: Path, split: str | None) -> tuple[list[Path], tuple[str, ...]]:
    """The folder's files of one split: `split`'s, else train's, else all of a folder whose files are no splits."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and file_format(path) and path.name[0] != ".")
    if not files:
        raise SpectraError(f"{folder} holds no data files. Known endings: {', '.join(FORMATS)}, also with .gz or .zst.")
    stems = {path: path.name.split(".")[0] for path in files}
    splits = {path: match[1] if (match := _SPLIT_NAME.match(stem)) else None for path, stem in stems.items()}
    names = sorted({splits[path] or stems[path] for path in files})
    wanted = split or ("train" if "train" in splits.values() else None)
    chosen = [path for path in files if wanted in (None, splits[path], stems[path])]
    if not chosen:
        raise SpectraError(f"{folder} has no split {split!r}. There are: {', '.join(names)}.")
    others = [path.name for path in files if path not in chosen]
    if not others:
        return chosen, ()
    return chosen, (f"read {', '.join(path.name for path in chosen)}; not read: {', '.join(others)}",)


def _from_files(
    files: list[Path], name: str, source: Path, columns: Mapping[str, str] | None, limit: int | None,
    quarantine: Path | None, notes: tuple[str, ...] = (),
) -> TextSet:  # fmt: skip
    return _build(read_several(files, columns), files, name, str(source), columns, limit, quarantine, notes)


def _build(
    records: Iterable[Record | Problem], files: Sequence[Path], name: str, source: str,
    columns: Mapping[str, str] | None, limit: int | None, quarantine: Path | None, notes: tuple[str, ...] = (),
    labels: Mapping[str, list[str]] | None = None,
) -> TextSet:  # fmt: skip
    """The rows of an earlier reading of the same files, or those of `records`, which are then not looked at."""
    key = [source, [(path, path.resolve()) for path in files], columns, limit, notes, labels]
    with Shelf(key, files) as shelf, Quarantine(source, quarantine, shelf.refused) as refused:
        if (kept := shelf.found(refused)) is not None:
            dataset, facts = kept
            return TextSet(
                name=name, kind=facts["kind"], dataset=dataset, quarantined=refused.count,
                quarantine_file=refused.path, problems=tuple(refused.first), notes=tuple(facts["notes"]),
                digest=shelf.digest,
            )  # fmt: skip
        return build(
            records, name=name, file=source, columns=columns, limit=limit, quarantine=refused, shelf=shelf,
            label_names=labels, notes=notes,
        )  # fmt: skip


def _from_beir(
    folder: Path, columns: Mapping[str, str] | None, split: str | None, limit: int | None, quarantine: Path | None
) -> TextSet:
    """The corpus of a BEIR folder as texts, titles included."""
    corpus = beir.find(folder, "corpus.jsonl")
    assert corpus is not None
    if split:
        raise UsageError(f"{folder} is read as its corpus, which has no split {split!r}. Leave it out.")
    notes = (f"read {corpus.name} of a BEIR folder: title and text",)
    records: Iterable[Record | Problem] = read_records(corpus)
    if not columns:
        records = _with_titles(records)
    return _build(records, [corpus], folder.resolve().name, str(corpus), columns, limit, quarantine, notes)


def _with_titles(records: Iterable[Record | Problem]) -> Iterator[Record | Problem]:
    for item in records:
        if isinstance(item, Problem) or "text" not in item.values:
            yield item
            continue
        try:
            text: object = document_text(item.values)
        except BadValue:
            text = item.values["text"] if not isinstance(item.values["text"], str) else None
        rest = {key: value for key, value in item.values.items() if key not in ("title", "text")}
        yield Record(item.line, {"text": text, **rest}, item.file)


def _from_hub(
    name: hub.HubName, columns: Mapping[str, str] | None, limit: int | None, quarantine: Path | None
) -> TextSet:
    records, files, labels, split = hub.hub_records(name, limit)
    notes = () if name.split else (f"split {split}",)
    short = ":".join(filter(None, (Path(name.path).name, name.config)))
    return _build(records, files, short, str(name), columns, limit, quarantine, notes, labels)


def _from_python(
    text: str, columns: Mapping[str, str] | None, split: str | None, limit: int | None, quarantine: Path | None
) -> TextSet:
    from spectra_nsa.text.readers.python_env import environment_pairs

    if columns or split:
        raise UsageError(f"{text} has fixed columns (anchor, positive) and no splits: leave --columns and --split out.")
    names = [name.strip() for name in text.removeprefix("python:").split(",") if name.strip()]
    if not names:
        raise _not_found("python:", Path())
    which = names[0] if names in (["stdlib"], ["installed"]) else names
    return environment_pairs(which, limit=limit, quarantine=quarantine)
