"""The number format to compute in, and the matching autocast."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from spectra_nsa.core.errors import UsageError, unknown_name

PRECISIONS = ("fp32", "bf16", "fp16", "auto")


def resolve_precision(wanted: str, device: str | None = None) -> str:
    """Returns a number format; ``"auto"`` becomes the fastest one that the processor supports natively.

    On a GPU it is ``"bf16"`` if supported, else ``"fp16"``. On a CPU it is ``"bf16"`` if native, else ``"fp32"``.

    Args:
        wanted: a name from `PRECISIONS`.
        device: the type of the device that computes; ``None`` for the GPU if there is one.

    Raises:
        UsageError: there is no such format, or fp16 without a GPU.
    """
    if wanted not in PRECISIONS:
        raise unknown_name("precision", wanted, PRECISIONS)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "fp16" and device == "cpu":
        raise UsageError("precision fp16 needs a GPU; on the CPU choose bf16, fp32 or auto.")
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if device == "cpu" and cpu_multiplies_bf16() else "fp32"


def ambient_precision(device: str) -> str:
    """Returns the number format of the autocast that is in force; without one what ``"auto"`` resolves to.

    Args:
        device: the type of the device that computes.
    """
    if not torch.is_autocast_enabled(device):
        return resolve_precision("auto", device)
    return "bf16" if torch.get_autocast_dtype(device) == torch.bfloat16 else "fp16"


def cpu_multiplies_bf16() -> bool:
    """Returns whether the CPU has AVX512-BF16 or AMX; elsewhere bf16 is emulated and slower than fp32."""
    capability = torch.backends.cpu.get_cpu_capability()
    if not capability.startswith("AVX512"):
        return False
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, flag, lambda: False)() for flag in flags)


def autocast(device_type: str, precision: str) -> AbstractContextManager[None]:
    """Returns autocast for inference in a precision from `resolve_precision`; for fp32 a context that does nothing."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in kinds:
        return contextlib.nullcontext()
    return torch.autocast(device_type, kinds[precision])
