"""Texts encoded as queries or documents by any sentence-transformers model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import torch

from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.models.prompts import check_role, role_prompt


def encode_role(model: Any, texts: Sequence[str], role: str, *, precision: str = "fp32", **options: Any) -> Any:
    """Encodes texts as queries or documents, in a number format.

    Args:
        model: any sentence-transformers model.
        texts: the texts to encode.
        role: ``"query"`` or ``"document"``, which selects prompt (`role_prompt`) and route.
        precision: see `resolve_precision`.
        **options: arguments of the model's `encode`, such as `batch_size` or `outputs`. Without a terminal, a
            `SavedModel` shows progress in lines, and the library's bar, which would print itself again and again, is
            hidden.

    Raises:
        UsageError: there is no such role.
    """
    check_role(role)
    if not sys.stderr.isatty() and isinstance(model, torch.nn.Module):
        options["show_progress_bar"] = False
    encode = getattr(model, f"encode_{role}")
    options = {
        "show_progress_bar": False,
        "prompt": role_prompt(model.prompts, model.default_prompt_name, role),
    } | options
    if getattr(model, "encodes_in", False):
        return encode(list(texts), precision=precision, **options)
    chosen = resolve_precision(precision)
    with contextlib.nullcontext() if chosen == "fp32" else autocast(model.device.type, chosen):
        return encode(list(texts), **options)
