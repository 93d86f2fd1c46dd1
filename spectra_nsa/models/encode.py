"""Encoding: the loop over batches of texts, and the encoding of queries and documents by their role."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_nsa.core.console import progress
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.models.prompts import role_prompt

SHORTENED = ("embedding", "semantic")  # outputs whose prefixes are valid vectors


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
    """
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
        (N, …) by name; (0,) without texts.
    """
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
    if not encoded:
        return {name: np.array([]) for name in names}
    inverse = np.argsort(np.concatenate(encoded))
    return {name: np.concatenate(arrays)[inverse] for name, arrays in parts.items()}


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
        **options: arguments of the model's `encode`, such as `batch_size` or `outputs`.
    """
    encode = getattr(model, f"encode_{role}")
    prompt = role_prompt(model.prompts, model.default_prompt_name, role)
    chosen = resolve_precision(precision)
    with contextlib.nullcontext() if chosen == "fp32" else autocast(model.device.type, chosen):
        return encode(list(texts), **({"show_progress_bar": False, "prompt": prompt} | options))
