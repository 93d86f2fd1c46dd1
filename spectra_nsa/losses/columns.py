"""What the loss stack checks and splits: the columns of a batch and the model's outputs for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spectra_nsa.config.terms import DISTILLATION_INPUTS, TERM_FACTS
from spectra_nsa.core.errors import UsageError
from spectra_nsa.losses.finite import NotFiniteError


def check_cacheable(names: Iterable[str]) -> None:
    """Checks that the terms can be computed from cached outputs.

    Raises:
        UsageError: one cannot.
    """
    for name in names:
        if not TERM_FACTS[name].cacheable:
            raise UsageError(
                f"train.cached_pass_tokens: the term {name!r} needs more than the model's outputs. Turn one "
                f"of them off: loss.terms.{name}.weight=0 or train.cached_pass_tokens=null."
            )


def check_outputs(outputs: Sequence[Mapping[str, Tensor]]) -> None:
    """Checks the outputs of each column.

    Raises:
        NotFiniteError: one is NaN or infinite.
    """
    for column in outputs:
        for name, value in column.items():
            if not torch.isfinite(value).all():
                raise NotFiniteError(f"the model's output {name!r} is not finite")


def split_inputs(features: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Tensor]]]:
    """Returns for each column what the model is given, and the distillation inputs in fp32."""
    columns = list(features)
    inputs = [{name: column[name].float() for name in DISTILLATION_INPUTS if name in column} for column in columns]
    return [
        {name: value for name, value in column.items() if name not in DISTILLATION_INPUTS} for column in columns
    ], inputs
