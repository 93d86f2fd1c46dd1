"""What `spectra export` writes: a graph, how its texts become ids, and how an export of it is checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import UsageError
from spectra_nsa.export.graph import Graph
from spectra_nsa.runtime import Runtime, SparseRuntime
from spectra_nsa.runtime.engines import Engine

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asks of all formats.

    Attributes:
        outputs: names; ``None`` for all that the model has and that were fitted.
        dim: dimensions of dense vectors to keep; ``None`` for all.
        strongest: terms of a text that a sparse encoder also gives as a list; ``None`` for the default.
        length: of all texts of a graph with fixed shapes; ``None`` for any.
    """

    outputs: Sequence[str] | None = None
    dim: int | None = None
    strongest: int | None = None
    length: int | None = None


class Subject(ABC):
    """A model that is exported.

    Attributes:
        graph: what is traced.
        tokenizer: of the texts that pass the graph.
        text: how they become ids, see `TextFacts`.
        facts: `outputs`, `dim` and `normalize` of each format, see `ExportFacts`.
        main: the output that decides whether an export is good enough.
        samples: texts on which ranges of its states are found.
        notes: what is left out.
    """

    graph: Graph
    tokenizer: Any
    text: Mapping[str, Any]
    facts: Mapping[str, Any]
    main: str
    samples: Sequence[str]
    notes: list[str]

    @abstractmethod
    def write_beside(self, folder: Path) -> None:
        """Writes further files, which all formats share."""

    @abstractmethod
    def open(self, folder: Path, name: str, engine: Engine | None) -> Runtime | SparseRuntime:
        """Opens an export of it."""

    @abstractmethod
    def compare(self, runtime: Any) -> dict[str, Any]:
        """Measures how far an export is from the model: `texts`, `outputs`, `ndcg@10`, `alone`, `seconds`, …"""


def text_facts(tokenizer: Any, max_length: int, prompts: Mapping[str, str | None], default: str | None) -> Any:
    """Returns how texts become token ids, see `TextFacts`."""
    return {
        "max_length": int(max_length),
        "truncation_side": tokenizer.truncation_side,
        "padding_side": tokenizer.padding_side,
        "pad_id": int(tokenizer.pad_token_id or 0),
        "prompts": {name: prompt or "" for name, prompt in prompts.items()},
        "default_prompt_name": default,
    }


def check_length(length: int | None, most: int) -> None:
    """Raises `UsageError` if a fixed length is not from 3 to the most tokens that the model reads."""
    if length is not None and not 3 <= length <= most:
        raise UsageError(f"--seq-len must be from 3 to the model's {most} tokens, not {length}.")
