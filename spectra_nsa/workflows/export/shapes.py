"""An exported graph on batches and lengths that it was not traced with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.export.graph import Graph
from spectra_nsa.runtime import Runtime, SparseRuntime

BATCHES, LENGTHS = (1, 2, 7), (3, 42)  # beside the longest
MOST = 1024  # tokens of a batch that a sparse encoder is tried with


def check_shapes(
    runtime: Runtime | SparseRuntime, graph: Graph, texts: Sequence[str], output: str, least: float
) -> None:
    """Runs batches of 1, 2 and 7 texts of 3, 42 and the most tokens, and compares one output with the model's.

    Of a sparse encoder, whose graph computes a logit of each term for each token, larger batches are left out.

    Args:
        runtime: the export.
        graph: the traced module.
        texts: whose tokens are used, one text after the other.
        output: a name of its outputs, of vectors.
        least: the least cosine that is accepted.

    Raises:
        SpectraError: a shape fails, or gives other vectors: something was traced that depends on the size.
    """
    import torch

    stream = np.array([number for row in runtime.ids(texts) for number in row], dtype=np.int64)
    at, fixed = graph.names.index(output), runtime.facts.length
    lengths = sorted({min(length, runtime.max_seq_length) for length in (*LENGTHS, runtime.max_seq_length)})
    for batch in BATCHES if fixed is None else (1,):
        for length in lengths:
            if runtime.facts.sparse and batch > 1 and batch * length > MOST:
                continue
            ids_BT, mask_BT = runtime.ids.padded(np.resize(stream, (batch, length)).tolist())
            with torch.no_grad():
                expected = graph(torch.from_numpy(ids_BT), torch.from_numpy(mask_BT))[at].numpy()
            try:
                found = runtime.engine.run(ids_BT, mask_BT, [output])[output]
            except Exception as error:
                reason = (str(error).strip().splitlines() or [""])[0][:200]
                raise SpectraError(
                    f"the graph fails on {batch} × {length} tokens ({type(error).__name__}: {reason})."
                ) from error
            cosine = cosines(found, expected).min() if found.shape == expected.shape else -1
            if cosine < least:
                raise SpectraError(
                    f"the graph gives other vectors for {batch} × {length} tokens: their cosine to the model's is "
                    f"{cosine:.6f} at worst, below {least:g}. Take another format, or accept it with --least-cosine."
                )


def batches(rows: list[list[int]], most: int, length: int | None) -> list[list[list[int]]]:
    """Splits texts in their order into batches of equal numbers, of about so many tokens with padding, at least two.

    Args:
        rows: token ids of each text.
        most: tokens.
        length: of all texts of a graph with fixed shapes, which takes one at a time; ``None`` for any.
    """
    count = 1 if length is not None else max(2, most // max(map(len, rows)))
    return [rows[at : at + count] for at in range(0, len(rows), count)]


def cosines(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the cosine of each row to that of the other array; −1 if it is not finite, 1 if both rows are zero."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    values: NDArray[np.float64] = (a * b).sum(-1) / np.maximum(norms, 1e-12)
    values = np.where(~a.any(-1) & ~b.any(-1), 1.0, values)
    return np.where(np.isfinite(values), values, -1.0)
