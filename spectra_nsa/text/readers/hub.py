"""Hugging Face data sets, by name or as a local folder with the same layout, through `datasets.load_dataset`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError, UsageError, missing_extra
from spectra_nsa.text.readers.records import Record

_NAME = re.compile(r"(?P<path>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]*))?(:(?P<split>[\w.-]+))?")
_SPLITS = ("train", "validation", "dev", "test")


@dataclass(frozen=True, kw_only=True)
class HubName:
    """`path` is ``org/name`` or a folder; `config` and `split` are ``None`` where they are not given."""

    path: str
    config: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        return ":".join([self.path, *filter(None, (self.config, self.split))])

    def with_split(self, split: str | None) -> HubName:
        """The same with `split`. Raises `UsageError` when the name has another one already."""
        if split and self.split and split != self.split:
            raise UsageError(f"{self}: the name says split {self.split!r}, the option {split!r}. Give one of them.")
        return HubName(path=self.path, config=self.config, split=self.split or split)


def parse(source: str) -> HubName | None:
    """``org/name``, ``org/name:config``, ``org/name:config:split`` or ``org/name::split``; ``None`` for others."""
    match = _NAME.fullmatch(source)
    if match is None or source.startswith("."):
        return None
    return HubName(path=match["path"], config=match["config"] or None, split=match["split"])


def is_hub_folder(folder: Path) -> bool:
    """Whether a folder's README.md declares data-set configurations, as on the Hub."""
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    head = readme.read_text(encoding="utf-8", errors="replace")
    return head.startswith("---") and re.search(r"^configs:", head.split("\n---")[0], re.M) is not None


def hub_records(name: HubName, limit: int | None) -> tuple[Iterator[Record], list[Path], dict[str, list[str]], str]:
    """Opens a set.

    Args:
        name: the set; without a split it is train, else validation, dev, test, else the first there is.
        limit: read about so many rows by streaming; ``None`` downloads the split once and reads it from the cache.

    Returns:
        The rows; the files they are in, empty where they are streamed; the names of numbered labels by column; the
        split.

    Raises:
        SpectraError: the set, its configuration or its split cannot be had.
    """
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", "data") from error
    local = Path(name.path).is_dir()
    try:
        split = name.split or _default_split(datasets.get_dataset_split_names(name.path, name.config))
        stream = local or limit is not None
        rows = datasets.load_dataset(name.path, name.config, split=split, streaming=stream)
    except Exception as error:
        raise _not_loaded(name, error) from error
    features = rows.features or {}
    labels = {key: list(value.names) for key, value in features.items() if isinstance(value, datasets.ClassLabel)}
    files = [] if stream else [Path(file["filename"]) for file in rows.cache_files]
    return _records(rows, name), files, labels, split


def _default_split(splits: list[str]) -> str:
    return next((split for split in _SPLITS if split in splits), splits[0])


def _records(rows: Any, name: HubName) -> Iterator[Record]:
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            yield Record(number, dict(row), str(name))
    except SpectraError:
        raise
    except Exception as error:
        raise SpectraError(
            f"{name}: reading stopped after row {number:,} ({_first_line(error)}). Try again."
        ) from error


def _not_loaded(name: HubName, error: Exception) -> SpectraError:
    return SpectraError(
        f"{name}: tried datasets.load_dataset({name.path!r}, {name.config!r}, split={name.split!r}) and got "
        f"{type(error).__name__}: {_first_line(error)}. Check the name (org/name:config:split) and the connection; "
        "a local JSON Lines, CSV, TSV or Parquet file, or a downloaded copy of the set's folder, works without one."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return " ".join(line.strip() for line in lines[:3])[:400].rstrip(".")
