"""What a user asks of mining, and the checks that need no data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import UsageError, unknown_name
from spectra_nsa.workflows.mine.output import check_output
from spectra_nsa.workflows.mine.rules import Rules

# The names of sentence-transformers' options → ours.
_THEIR_NAMES = {"num_negatives": "negatives", "absolute_margin": "margin", "sampling_strategy": "sampling"}


@dataclass(frozen=True, kw_only=True)
class MiningRequest:
    """The arguments of `mine`, where they are described."""

    source: str | Path
    model: str | Path
    output: Path
    corpus: str | Path | None
    judge: str | Path | None
    incomplete: str
    scores: bool
    keep: Sequence[str]
    columns: Mapping[str, str] | None
    split: str | None
    limit: int | None
    rules: Rules

    def check(self) -> None:
        """Checks what can be checked without opening data or models.

        Raises:
            SpectraError: a source or a model does not exist.
            UsageError: options contradict each other, or the output cannot be written.
        """
        from spectra_nsa.text.sources import check_source

        if self.judge is None and self.rules.judge_ratio != 1:
            raise UsageError("--judge-ratio needs a --judge.")
        check_output(self.output, str(self.source), self.incomplete)
        for source in (self.source, self.corpus):
            if source is not None:
                check_source(source)
        for model in (self.model, self.judge):
            _check_model(model)

    @property
    def quarantine(self) -> Path:
        """The folder for the quarantined rows of the sources."""
        return self.output.with_name(f"{self.output.stem}.quarantine")


def _check_model(model: str | Path | None) -> None:
    from spectra_nsa.models.checks import local_folder

    if not isinstance(model, str | Path | None):
        raise UsageError(
            f"mine takes a model by folder or Hub name, not a {type(model).__name__}, because the SHA-256 of its files "
            "is part of the cache key. Save your model with save_pretrained and pass its folder."
        )
    if model is not None and str(model) != "bm25":
        local_folder(model)


def rules_from(options: dict[str, Any]) -> Rules:
    """Builds the rules from the keyword arguments of `mine`.

    Raises:
        UsageError: an option is unknown or out of its range.
    """
    options = dict(options)
    percentage = options.pop("percentage_to_positive", None)
    if percentage is not None:
        if options.get("relative_margin") is not None:
            raise UsageError("--relative-margin and --percentage-to-positive are the same rule: use only one of them.")
        if not 0 < percentage <= 1:
            raise UsageError(
                f"--percentage-to-positive must be above 0 and at most 1, such as 0.95, not {percentage:g}."
            )
        options["relative_margin"] = 1 - percentage
    names = [field.name for field in dataclasses.fields(Rules)]
    for name in options:
        if name not in names:
            raise unknown_name("option of mine", name, names, _THEIR_NAMES)
    return Rules(**options)
