"""Hugging Face datasets, by name or as a local folder with the same layout, through `datasets.load_dataset`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_nsa.core.console import no_retry_log
from spectra_nsa.core.errors import SpectraError, UsageError, missing_extra
from spectra_nsa.text.rows import Record

_NAME = re.compile(r"(?P<path>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]*))?(:(?P<split>[\w.-]+))?")
_SPLITS = ("train", "validation", "dev", "test")


@dataclass(frozen=True, kw_only=True)
class HubName:
    """The name of a dataset.

    Attributes:
        path: ``org/name``, or a folder.
        config: the configuration; ``None`` for the default.
        split: the split; ``None`` if the name does not say.
    """

    path: str
    config: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        return ":".join([self.path, *filter(None, (self.config, self.split))])

    def with_split(self, split: str | None) -> HubName:
        """Returns the name with a split; ``None`` keeps the split it has.

        Raises:
            UsageError: the name has a different split already.
        """
        if split and self.split and split != self.split:
            raise UsageError(f"{self} names the split {self.split!r}, but the option says {split!r}. Give only one.")
        return HubName(path=self.path, config=self.config, split=self.split or split)


def parse(source: str) -> HubName | None:
    """Parses ``org/name``, ``org/name:config``, ``org/name:config:split`` or ``org/name::split``.

    Returns ``None`` for any other text.
    """
    match = _NAME.fullmatch(source)
    if match is None or source.startswith("."):
        return None
    return HubName(path=match["path"], config=match["config"] or None, split=match["split"])


def is_hub_folder(folder: Path) -> bool:
    """Returns whether the README.md of a folder declares dataset configurations, as on the Hub."""
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    head = readme.read_text(encoding="utf-8", errors="replace")
    return head.startswith("---") and re.search(r"^configs:", head.split("\n---")[0], re.M) is not None


def hub_records(
    name: HubName, limit: int | None, *, stream: bool = False
) -> tuple[Iterator[Record], list[Path], dict[str, list[str]], str]:
    """Opens a dataset.

    Args:
        name: the dataset. If it has no split, the first of train, validation, dev and test that exists is read,
            otherwise the first split.
        limit: the approximate number of rows to stream; ``None`` downloads the split once and reads the local copy.
        stream: whether to stream all rows too.

    Returns:
        the rows; their files (empty if they are streamed); column → the names of its numbered labels; the split.

    Raises:
        SpectraError: the dataset, its configuration or its split cannot be loaded, or datasets is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", "data") from error
    local = Path(name.path).is_dir()
    try:
        with no_retry_log():
            split = name.split or _default_split(datasets.get_dataset_split_names(name.path, name.config))
            stream = stream or local or limit is not None
            rows = datasets.load_dataset(name.path, name.config, split=split, streaming=stream)
    except Exception as error:
        raise _load_error(name, error) from error
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
            f"{name}: reading failed after row {number:,} ({_first_lines(error)}). Check the connection and try again."
        ) from error


def _load_error(name: HubName, error: Exception) -> SpectraError:
    if isinstance(error, ConnectionError):
        return SpectraError(
            f"{name} is neither a file or folder here nor a dataset in the Hub's cache, and the Hub could not be "
            "reached. Check the name and the connection (and HF_HUB_OFFLINE), or give a local file or folder."
        )
    return SpectraError(
        f"{name}: datasets.load_dataset({name.path!r}, {name.config!r}, split={name.split!r}) failed with "
        f"{type(error).__name__}: {_first_lines(error)}. Check the name (org/name:config:split) and the connection. "
        "Offline, use a local JSON Lines, CSV, TSV or Parquet file, or a downloaded copy of the dataset folder."
    )


def _first_lines(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return " ".join(line.strip() for line in lines[:3])[:400].rstrip(".")
