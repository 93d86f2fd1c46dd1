"""Slow things that no test result depends on, which tests therefore skip."""

from __future__ import annotations

import os
import sys

import pytest
import torch

THROUGHPUT = "spectra_nsa.training.monitor.throughput"


def take_shortcuts(patch: pytest.MonkeyPatch) -> None:
    """Skips what is slow in each training run.

    - Flushing files to the disk: it matters only if the machine loses power.
    - The benchmark of the machine's matrix products, 0.3 s for each run: every machine does 1 TFLOP/s. Only if
      training is already imported, so that a test of something else does not import it.

    And `encode` computes in fp32 unless a test says otherwise, whatever the processor could multiply.
    """
    from spectra_nsa.models.encoding import outputs

    ambient = outputs.ambient_precision
    patch.setattr(
        outputs, "ambient_precision", lambda device: ambient(device) if torch.is_autocast_enabled(device) else "fp32"
    )
    patch.setattr(os, "fsync", lambda descriptor: None)
    if THROUGHPUT in sys.modules:
        patch.setattr(sys.modules[THROUGHPUT], "matmul_peak", lambda device, precision: 1e12)
