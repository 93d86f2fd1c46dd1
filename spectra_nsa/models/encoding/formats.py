"""Number formats: what `precision` means, and vectors in the forms that sentence-transformers returns."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.util.quantization import quantize_embeddings

from spectra_nsa.core.errors import unknown_name
from spectra_nsa.core.precision import PRECISIONS

QUANTIZED = ("int8", "uint8", "binary", "ubinary")  # the library's names of vectors' formats


def read_precision(precision: str | None) -> tuple[str | None, str | None]:
    """Returns the number format to compute in and that of the vectors; ``None`` for the default.

    Raises:
        UsageError: there is no such format.
    """
    if precision in (None, "float32"):
        return None, None
    if precision in QUANTIZED:
        return None, precision
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, (*PRECISIONS, "float32", *QUANTIZED))
    return precision, None


def as_library(
    vectors_ND: NDArray[Any], quantized: str | None, as_array: bool, as_tensor: bool, device: torch.device
) -> Any:
    """Returns vectors as `SentenceTransformer.encode` would.

    Args:
        vectors_ND: fp32.
        quantized: a name from `QUANTIZED`; ``None`` for none.
        as_array, as_tensor: a tensor if `as_tensor`, else an array if `as_array`, else a list of tensors.
        device: of tensors.
    """
    if quantized is not None:  # of no texts too: one row has the type and width
        rows_ND = vectors_ND if len(vectors_ND) else np.zeros((1, vectors_ND.shape[1]), np.float32)
        vectors_ND = np.asarray(quantize_embeddings(rows_ND, precision=cast(Any, quantized)))[: len(vectors_ND)]
    if as_array and not as_tensor:
        return vectors_ND
    tensor = torch.from_numpy(vectors_ND).to(device)
    return tensor if as_tensor else list(tensor)
