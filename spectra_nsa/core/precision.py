"""The number format to compute in, and the matching autocast."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from spectra_nsa.core.errors import UsageError


def resolve_precision(wanted: str) -> str:
    """Returns a number format; ``"auto"`` becomes the fastest one that the processor supports natively.

    On a GPU it is ``"bf16"`` if supported, else ``"fp16"``. On a CPU it is ``"bf16"`` if native, else ``"fp32"``.

    Raises:
        UsageError: fp16 without a GPU.
    """
    cuda = torch.cuda.is_available()
    if wanted == "fp16" and not cuda:
        raise UsageError("precision fp16 needs a GPU; on the CPU choose bf16, fp32 or auto.")
    if wanted != "auto":
        return wanted
    if cuda:
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if cpu_multiplies_bf16() else "fp32"


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
