"""Encoding: the loop over batches of texts, and the encoding of queries and documents by their role."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import UsageError, unknown_name
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.heads.kinds import ALL_OUTPUTS, SHORTENED
from spectra_nsa.metrics.finite import not_finite
from spectra_nsa.models.prompts import check_role, role_prompt

# Outputs that are finite even if what they are computed from is not.
_SOURCES = {"fast": "fast_logits", "anomaly_p": "anomaly", "is_ood": "anomaly"}
_FINITE = "finite "


def longest_first(texts: Sequence[str]) -> NDArray[np.int64]:
    """Returns the positions of texts, longest first by characters; ties keep their order."""
    return np.argsort([-len(text) for text in texts], kind="stable")


def shortest_first(texts: Sequence[str]) -> NDArray[np.int64]:
    """Returns the positions of texts, shortest first by characters; ties keep their order."""
    return np.argsort([len(text) for text in texts], kind="stable")


def batches(
    texts: Sequence[str], size: int, order: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], list[str]]]:
    """Yields batches of texts with their positions.

    Args:
        texts: all texts.
        size: texts per batch.
        order: the positions in batch order; ``None`` for `longest_first`, so the first batch needs the most memory.

    Raises:
        UsageError: the size is not positive.
    """
    if size < 1:
        raise UsageError(f"the batch size must be at least 1, not {size}.")
    order = longest_first(texts) if order is None else order
    for start in range(0, len(order), size):
        positions = order[start : start + size]
        yield positions, [texts[position] for position in positions]


@torch.inference_mode()
def encode_texts(
    texts: Sequence[str],
    compute: Callable[[list[str]], Mapping[str, Tensor]],
    names: Sequence[str],
    *,
    batch_size: int,
    order: NDArray[np.int64] | None = None,
    label: str | None = None,
) -> dict[str, NDArray[Any]]:
    """Returns named outputs of all texts, in the order of the texts.

    Args:
        texts: in any order.
        compute: maps a batch of B texts to tensors by name, each (B, …).
        names: the outputs to return.
        batch_size: texts per batch.
        order: see `batches`. The outputs' last bits depend on it, as on `batch_size`.
        label: words before a progress bar; ``None`` for none.

    Returns:
        (N, …) by name, of the same type and width for any N, also 0.
    """
    if not len(texts):
        return {name: array[:0] for name, array in encode_texts([""], compute, names, batch_size=1).items()}
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    encoded: list[NDArray[np.int64]] = []
    text_batches = batches(texts, batch_size, order)
    if label is not None:
        text_batches = progress(text_batches, label=label, total=-(-len(texts) // batch_size))
    for positions, batch in text_batches:
        outputs = compute(batch)
        encoded.append(positions)
        for name in names:
            parts[name].append(outputs[name].cpu().numpy())
    inverse = np.argsort(np.concatenate(encoded))
    return {name: np.concatenate(arrays)[inverse] for name, arrays in parts.items()}


def encode_outputs(
    texts: Sequence[str],
    compute: Callable[[list[str], Sequence[str]], Mapping[str, Tensor]],
    outputs: Sequence[str],
    *,
    batch_size: int,
    truncate_dim: int | None = None,
    label: str | None = None,
) -> dict[str, NDArray[Any]]:
    """Returns named outputs of a model, as `encode_texts` does.

    Args:
        texts, batch_size, label: see `encode_texts`.
        compute: maps a batch of texts and names of outputs to tensors by name.
        outputs: the outputs to return.
        truncate_dim: see `shorten`.

    Raises:
        UsageError: an output does not exist.
        SpectraError: bits or p-values are requested, and what they are computed from is not finite. They would not
            show it.
    """
    for name in outputs:
        if name not in ALL_OUTPUTS:
            raise unknown_name("output", name, ALL_OUTPUTS)
    sources = dict.fromkeys(_SOURCES[name] for name in outputs if name in _SOURCES)

    def with_sources(batch: list[str]) -> dict[str, Tensor]:
        values = compute(batch, (*outputs, *sources))
        finite = {_FINITE + name: values[name].isfinite().reshape(len(batch), -1).all(1) for name in sources}
        return shorten({name: values[name] for name in outputs}, truncate_dim) | finite

    names = (*outputs, *(_FINITE + name for name in sources))
    arrays = encode_texts(texts, with_sources, names, batch_size=batch_size, label=label)
    for name in sources:
        finite_N = arrays.pop(_FINITE + name)
        if not finite_N.all():
            raise not_finite(int((~finite_N).sum()), len(finite_N), "the model", f"values of {name}")
    return arrays


def check_truncation(size: int | None, dims: int) -> None:
    """Checks that vectors can be cut to a size.

    Args:
        size: the leading dimensions to keep; ``None`` keeps all.
        dims: the dimensions that the vectors have.

    Raises:
        UsageError: it is not positive, or they have fewer dimensions.
    """
    if size is not None and not 1 <= size <= dims:
        raise UsageError(f"truncate_dim must be from 1 to the model's {dims} dimensions, not {size}.")


def shorten(outputs: Mapping[str, Tensor], size: int | None) -> dict[str, Tensor]:
    """Cuts `embedding` and `semantic` to `size` dimensions and normalizes them again; ``None`` keeps all."""
    if size is None:
        return dict(outputs)
    return {
        name: torch.nn.functional.normalize(value[:, :size], dim=-1) if name in SHORTENED else value
        for name, value in outputs.items()
    }


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
    prompt = role_prompt(model.prompts, model.default_prompt_name, role)
    chosen = resolve_precision(precision)
    with contextlib.nullcontext() if chosen == "fp32" else autocast(model.device.type, chosen):
        return encode(list(texts), **({"show_progress_bar": False, "prompt": prompt} | options))
