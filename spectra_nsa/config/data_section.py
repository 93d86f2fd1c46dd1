"""The section `data` of a recipe: one source of training rows, or several datasets by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from spectra_nsa.config.section import Section
from spectra_nsa.config.terms import TERM_FACTS
from spectra_nsa.core.errors import UsageError, unknown_name

Mixing = Literal["proportional", "round_robin"]


class SourceSection(Section):
    """Where training rows come from, and which of them are read."""

    train: str | None = Field(
        None, description="the source to train on: a file, a folder, a Hub dataset or `python:installed`"
    )
    columns: dict[str, str] | None = Field(None, description="ROLE: COLUMN, for column names that are not recognized")
    split: str | None = Field(None, description="split of a Hub dataset or of a folder; null takes train")
    limit: int | None = Field(None, gt=0, description="maximum number of rows; null reads all")
    negatives: int | None = Field(
        None, ge=0, le=8, description="most negatives of a row; 0 reads triplets as pairs, null reads up to 8"
    )
    group: str | None = Field(
        None, description="a column: each batch is filled from rows that share its value; null mixes all rows"
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _mapping(cls, columns: Any) -> Any:
        if isinstance(columns, str):
            roles = ", ".join(": ".join(part.split("=", 1)) for part in columns.split(",")) or "anchor: title"
            raise ValueError(
                f"give a mapping of roles to columns, data.columns='{{{roles}}}', or use the option --columns "
                "anchor=title,positive=body"
            )
        return columns

    @property
    def source(self) -> str:
        """The source of the training rows.

        Raises:
            UsageError: the recipe names none.
        """
        if self.train is None:
            raise UsageError("nothing to train on: give --data SOURCE (a file, a Hub dataset, or python:installed).")
        return self.train


class SetSection(SourceSection):
    """One of several datasets: each batch is filled from one of them."""

    train: str = Field(description="the source of its rows, as in `data.train`")
    weight: float = Field(
        1.0, gt=0, description="how often it is read relative to the others: 2 doubles its batches, 0.5 halves them"
    )
    prompts: dict[Literal["query", "document"], str] | None = Field(
        None, description="its own prompts; null takes those of the model"
    )
    terms: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="the loss terms that it trains; null takes all that apply to its rows"
    )

    @field_validator("terms")
    @classmethod
    def _known_terms(cls, terms: list[str] | None) -> list[str] | None:
        for name in terms or []:
            if name not in TERM_FACTS:
                raise ValueError(str(unknown_name("loss term", name, TERM_FACTS)).rstrip("."))
        return terms


class DataSection(SourceSection):
    """The data that the model learns from."""

    sets: Annotated[dict[str, SetSection], Field(min_length=1)] | None = Field(
        None, description="several datasets by name, instead of `data.train`; null trains on `data.train` alone"
    )
    mixing: Mixing = Field(
        "proportional",
        description=(
            "how the batches of `data.sets` follow each other: proportional reads each as often as its rows fill a "
            "batch, in random order; round_robin takes turns until the first has no batch left"
        ),
    )
    dev: str | None = Field(
        None,
        description=(
            "a source for the dev metric, pairs or scored pairs; null holds out rows of `data.train`, or of the first "
            "of `data.sets`"
        ),
    )
    dev_rows: int = Field(
        200,
        ge=0,
        description="rows of the dev set, at most a quarter of the data if held out; 0 turns the dev metric off",
    )

    @property
    def sources(self) -> dict[str, SourceSection]:
        """The sources of training rows by the key that holds them: ``data``, or ``data.sets.NAME`` for each."""
        return {"data": self} if self.sets is None else {f"data.sets.{name}": part for name, part in self.sets.items()}

    @field_validator("sets", mode="before")
    @classmethod
    def _set_names(cls, sets: Any) -> Any:
        for name in sets if isinstance(sets, Mapping) else ():
            if not re.fullmatch(r"[\w-]+", str(name)):
                raise ValueError(f"the name {name!r} of a dataset may hold letters, digits, '-' and '_' only")
        return sets

    @model_validator(mode="after")
    def _one_way_to_name_the_rows(self) -> DataSection:
        if self.sets is None:
            return self
        if self.train is not None:
            raise ValueError("train and sets both name training rows: leave one of them out (--data sets data.train)")
        own = ("split", "limit", "negatives", "group", *(("columns",) if self.dev is None else ()))
        if given := [name for name in own if getattr(self, name) is not None]:
            raise ValueError(f"{given[0]} is for data.train: give it to each dataset, as data.sets.NAME.{given[0]}")
        return self
