"""Texts to named outputs of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_nsa.core.errors import UsageError, unknown_name
from spectra_nsa.core.precision import ambient_precision, resolve_precision
from spectra_nsa.heads.kinds import ALL_OUTPUTS, SHORTENED
from spectra_nsa.heads.outputs import EncoderWithHeads
from spectra_nsa.metrics.finite import not_finite
from spectra_nsa.models.encoding.loop import encode_texts
from spectra_nsa.models.encoding.packed import named_outputs

# Outputs that are finite even if what they are computed from is not.
_SOURCES = {"fast": "fast_logits", "anomaly_p": "anomaly", "is_ood": "anomaly"}
_FINITE = "finite "


def encode_with(
    model: EncoderWithHeads,
    texts: Sequence[str],
    tokenize: Callable[[list[str]], Mapping[str, Any]],
    *,
    outputs: Sequence[str] | None = None,
    precision: str | None = None,
    truncate_dim: int | None = None,
    normalize: bool = False,
    batch_size: int | None = None,
    label: str | None = None,
) -> Any:
    """Encodes texts with an encoder and its heads.

    Args:
        model: in evaluation mode.
        texts, tokenize, batch_size, label: see `encode_texts`.
        outputs: names of outputs; ``None`` for `embedding` alone.
        precision: a name from `PRECISIONS`; ``None`` for the format of the autocast in force, else ``"auto"``.
        truncate_dim: see `shorten`.
        normalize: scales `embedding` to unit length even if the model does not; without `outputs`.

    Returns:
        (N, D) fp32; with `outputs` a dictionary of arrays by name.

    Raises:
        UsageError: an output or a precision does not exist, or there are not so many dimensions.
        SpectraError: see `encode_outputs`.
    """
    check_truncation(truncate_dim, model.spec.projection_dim)
    device = next(model.parameters()).device
    chosen = ambient_precision(device.type) if precision is None else resolve_precision(precision, device.type)
    options: dict[str, Any] = {"batch_size": batch_size, "device": device.type, "label": label}

    def compute(features: dict[str, Any], names: Sequence[str]) -> Mapping[str, Tensor]:
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in features.items()}
        return named_outputs(model, moved, names, chosen)

    if outputs is not None:
        return encode_outputs(texts, tokenize, compute, outputs, truncate_dim=truncate_dim, **options)
    normalize = normalize or (truncate_dim is not None and model.spec.normalize)

    def embed(features: dict[str, Any]) -> dict[str, Tensor]:
        vectors_BD = compute(features, ("embedding",))["embedding"][:, :truncate_dim]
        return {"embedding": torch.nn.functional.normalize(vectors_BD, dim=1) if normalize else vectors_BD}

    return encode_texts(texts, tokenize, embed, ("embedding",), **options)["embedding"]


def encode_outputs(
    texts: Sequence[str],
    tokenize: Callable[[list[str]], Mapping[str, Any]],
    compute: Callable[[dict[str, Any], Sequence[str]], Mapping[str, Tensor]],
    outputs: Sequence[str],
    *,
    truncate_dim: int | None = None,
    **options: Any,
) -> dict[str, NDArray[Any]]:
    """Returns named outputs of a model, as `encode_texts` does.

    Args:
        texts, tokenize: see `encode_texts`.
        compute: maps features and names of outputs to tensors by name.
        outputs: the outputs to return.
        truncate_dim: see `shorten`.
        **options: `batch_size`, `device` and `label` of `encode_texts`.

    Raises:
        UsageError: an output does not exist.
        SpectraError: bits or p-values are requested, and what they are computed from is not finite. They would not
            show it.
    """
    for name in outputs:
        if name not in ALL_OUTPUTS:
            raise unknown_name("output", name, ALL_OUTPUTS)
    sources = dict.fromkeys(_SOURCES[name] for name in outputs if name in _SOURCES)

    def with_sources(features: dict[str, Any]) -> dict[str, Tensor]:
        values = compute(features, (*outputs, *sources))
        size = len(features["input_ids"])
        finite = {_FINITE + name: values[name].isfinite().reshape(size, -1).all(1) for name in sources}
        return shorten({name: values[name] for name in outputs}, truncate_dim) | finite

    names = (*outputs, *(_FINITE + name for name in sources))
    arrays = encode_texts(texts, tokenize, with_sources, names, **options)
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
