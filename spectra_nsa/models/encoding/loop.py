"""The loop over batches of texts, in which texts of similar length share a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.progress import Progress
from spectra_nsa.tokens.lengths import group_by_tokens

_WINDOW = 1024  # texts that are tokenized together
_BATCH_TOKENS = {"cpu": 2048}  # of a batch, with padding: more do not run faster
_GPU_TOKENS = 32_768


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
    check_batch_size(size)
    order = longest_first(texts) if order is None else order
    for start in range(0, len(order), size):
        positions = order[start : start + size]
        yield positions, [texts[position] for position in positions]


def check_batch_size(size: int | None) -> None:
    """Raises `UsageError` if a number of texts per batch is not positive; ``None`` is valid."""
    if size is not None and size < 1:
        raise UsageError(f"the batch size must be at least 1, not {size}.")


@torch.inference_mode()
def encode_texts(
    texts: Sequence[str],
    tokenize: Callable[[list[str]], Mapping[str, Any]],
    compute: Callable[[dict[str, Any]], Mapping[str, Tensor]],
    names: Sequence[str],
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    label: str | None = None,
) -> dict[str, NDArray[Any]]:
    """Returns named outputs of all texts, in the order of the texts.

    Texts are tokenized in windows of similar length, and computed in batches of similar numbers of tokens, so that
    little padding is computed.

    Args:
        texts: in any order.
        tokenize: maps texts to `input_ids` and `attention_mask` (B, T), padded on either side, and other features.
        compute: maps such features of a batch of B texts to tensors by name, each (B, …).
        names: the outputs to return.
        batch_size: texts per batch; ``None`` for as many as fill a number of tokens that suits the device. The outputs'
            last bits may depend on it.
        device: the type of the device that computes.
        label: words before a progress bar; ``None`` for none.

    Returns:
        (N, …) by name, of the same type and width for any N, also 0.

    Raises:
        UsageError: the batch size is not positive.
    """
    check_batch_size(batch_size)
    if not len(texts):
        return {name: array[:0] for name, array in encode_texts([""], tokenize, compute, names).items()}
    tokens, window = _BATCH_TOKENS.get(device, _GPU_TOKENS), max(_WINDOW, batch_size or 0)
    arrays: dict[str, NDArray[Any]] = {}
    with contextlib.nullcontext() if label is None else Progress(len(texts), label=label) as bar:
        for positions, batch in batches(texts, window):
            features = tokenize(batch)
            for rows in _length_batches(features, batch_size, tokens):
                outputs = compute(select_texts(features, rows))
                for name in names:
                    values = outputs[name].cpu().numpy()
                    if name not in arrays:
                        arrays[name] = np.empty((len(texts), *values.shape[1:]), values.dtype)
                    arrays[name][positions[rows]] = values
                if bar is not None:
                    bar.advance(len(rows))
    return arrays


def _length_batches(features: Mapping[str, Any], size: int | None, tokens: int) -> list[list[int]]:
    """Returns the rows of each batch, longest texts first."""
    lengths = features["attention_mask"].sum(1).tolist()
    if size is None:
        return group_by_tokens(lengths, tokens)[::-1]
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[start : start + size] for start in range(0, len(order), size)]


def select_texts(features: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Returns the features of some texts of a batch, without the columns that are padding in all of them."""
    mask_BT = features["attention_mask"]
    if len(rows) == len(mask_BT) == 1:
        return dict(features)
    index = torch.tensor(rows)
    used_T = mask_BT[index].any(0)
    used_T[0] |= ~used_T.any()
    return {
        name: value[index][:, used_T] if isinstance(value, Tensor) and value.shape == mask_BT.shape else value
        for name, value in features.items()
    }
