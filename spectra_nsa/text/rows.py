"""What reading a source gives: a table of texts or a retrieval task, and the rows that were refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datasets import Dataset

Kind = Literal["pairs", "triplets", "scored", "labelled", "texts"]

REQUIRED: dict[Kind, tuple[str, ...]] = {
    "pairs": ("anchor", "positive"),
    "triplets": ("anchor", "positive", "negative"),
    "scored": ("sentence1", "sentence2", "score"),
    "labelled": ("text", "label"),
    "texts": ("text",),
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One refused row.

    Attributes:
        file: the file or data set it is in.
        line: its first line in a text file, its row number elsewhere; both count from 1, 0 stands for the whole file.
        column: the column at fault; ``None`` when the whole row is.
        reason: what is wrong, in a few words.
        raw: the row's first 2,000 characters.
    """

    file: str
    line: int
    column: str | None
    reason: str
    raw: str


@dataclass(frozen=True, kw_only=True)
class TextSet:
    """A table of texts whose columns are known by their role.

    Attributes:
        name: a short name for reports.
        kind: which of `REQUIRED`'s column sets `dataset` begins with.
        dataset: the rows; the required columns come first, then `negative_2` …, then what else the source had.
        quarantined: how many rows were refused; one with a list of positives counts once.
        quarantine_file: where they were written; ``None`` when nobody asked for that or there were none.
        problems: the first few refused rows.
        notes: what was done to the data that its reader should know, such as scores that were rescaled.
        digest: SHA-256 of the rows, where they are on disk; ``None`` where they are in memory.
    """

    name: str
    kind: Kind
    dataset: Dataset
    quarantined: int = 0
    quarantine_file: Path | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = field(default=())
    digest: str | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        """The columns to train on, in order: the required ones and any further negatives."""
        further = [c for c in self.dataset.column_names if re.fullmatch(r"negative_\d+", c)]
        return REQUIRED[self.kind] + tuple(further if self.kind == "triplets" else ())

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The roles that hold text: all of them but `score` and `label`."""
        return tuple(role for role in self.roles if role not in ("score", "label"))


@dataclass(frozen=True, kw_only=True)
class RetrievalSet:
    """A retrieval task in the BEIR form.

    Attributes:
        name: the folder's name.
        corpus: document id → title and text, joined by a space where there is a title.
        queries: query id → text; only queries with a relevant document in the corpus.
        qrels: query id → document id → relevance (0 = judged, not relevant).
        split: the judgements' split, such as ``"test"``.
        missing: how many judgements name a query or document that is not there; they are left out.
        quarantined: how many broken lines were refused in the three files.
        problems: the first few of them.
        notes: what else was left out, in words.
    """

    name: str
    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    split: str = "test"
    missing: int = 0
    quarantined: int = 0
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
