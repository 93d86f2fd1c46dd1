"""Two processes (gloo, CPU) that share an encoder out do what one does with all of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

import spectra_nsa as sp
from spectra_nsa.config.recipe import LossSection
from spectra_nsa.core import processes
from spectra_nsa.losses.stack import NEEDS, LossStack
from spectra_nsa.models.length_groups import passes_of
from spectra_nsa.training.shards import Shards, whole_tensor
from tests.training.test_processes import COLUMNS, SHARE, TERMS, poisoned_run, run_recipe

ALONE = {"spectral": {"weight": 1.0}, "semantic": {"weight": 0.0}}  # looks at anchors only
# texts a row, forward passes, tokens a cached pass, gradient checkpointing, terms, precision
CASES: dict[str, tuple[int, int | None, int | None, bool, dict[str, Any], str]] = {
    "pairs": (2, 4, None, False, TERMS, "fp32"),
    "triplets": (3, 4, None, False, TERMS, "fp32"),
    "pairs cached": (2, None, 24, False, TERMS, "fp32"),
    "triplets cached": (3, None, 24, False, TERMS, "fp32"),
    "checkpointing": (2, 4, None, True, TERMS, "fp32"),
    "checkpointing cached": (2, None, 24, True, TERMS, "fp32"),
    "anchors alone": (2, 4, None, False, ALONE, "fp32"),
    "anchors alone cached": (2, None, 12, False, ALONE, "fp32"),
    "bf16": (2, 4, None, False, TERMS, "bf16"),
}


def one_step(start: Path, case: str, rows: slice, *, shard: bool) -> dict[str, Any]:
    """Values and whole gradients after the exchange, of one step on a share of the rows."""
    columns, groups, cached, checkpointing, terms, precision = CASES[case]
    torch.manual_seed(0)
    more = {"attention": "spectral", "spectral_dim": 8} if case == "pairs" else {}
    model = sp.warm_start(start, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, entity=True).train()
    del more
    torch.nn.init.uniform_(model.spectra.entity.prior.idf)
    if checkpointing:
        model.spectra.gradient_checkpointing_enable({"use_reentrant": False})
    shards = Shards(model, precision) if shard else None
    section = LossSection.model_validate({"terms": terms})
    loss = LossStack(model, section, active=list(NEEDS), sizes=[32, 16], groups=groups, cached=cached, together=shard)
    loss.gradient_norms = {}
    features = [model.preprocess(column[rows]) for column in COLUMNS[:columns]]
    with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
        values = loss(features)
    torch.stack(list(values.values())).sum().backward()
    loss.finish()
    processes.mean_gradients(model.parameters())
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {
        "passes": len(passes_of(features, groups, cached)),
        "values": {name: float(value.detach()) for name, value in values.items()},
        "gradients": {name: whole_tensor(gradient) for name, gradient in gradients.items()},
        "norms": loss.gradient_norms,
        "shared": sum(isinstance(gradient, DTensor) for gradient in gradients.values()),
        "gathered": 0 if shards is None else gathered_numbers(model),
    }


def gathered_numbers(model: torch.nn.Module) -> int:
    return sum(processes.own_part(weight).numel() for weight in model.spectra.encoder.parameters())
