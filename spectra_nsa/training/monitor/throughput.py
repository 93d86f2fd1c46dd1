"""The speed of a run, its share of padding, and the share of the machine that it uses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.core.memory import resident_gb
from spectra_nsa.tokens.length_batches import Work

_KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SIZES = {"cuda": 8192, "cpu": 1024}
_SECONDS = 0.3  # of measuring


def matmul_peak(device: torch.device, precision: str) -> float:
    """Measures this machine's peak FLOP/s: the fastest of several square matrix products, 2·n³ operations each.

    Takes about a third of a second. n is 8192 on a GPU and 1024 elsewhere.

    Args:
        device: the device to measure.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    """
    n = _SIZES.get(device.type, 1024)
    generator = torch.Generator(device).manual_seed(0)  # training's random state stays as it is
    a, b = (torch.randn(n, n, generator=generator, device=device).to(_KINDS[precision]) for _ in range(2))
    best, began = float("inf"), time.perf_counter()
    for round_ in range(1_000):
        before = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if round_:  # the first product includes set-up
            best = min(best, now - before)
        if round_ and now - began > _SECONDS:
            break
    return 2 * n**3 / best


class Throughput(TrainerCallback):
    """Adds speed and memory to the log of each logged step.

    Evaluating and saving do not count as training time. `matmul_share` is 3 · F · tokens/s over the machine's matmul
    peak. F are the FLOPs per token of a forward pass at the texts' real lengths; the backward pass counts twice that.
    Padding, heads, the loss, the optimizer and recomputed activations are not counted.

    Args:
        work: the tokens that went through the model; emptied at each log.
        columns: texts per row, as a mean over several datasets: 2 for pairs, more with hard negatives; 0 if there are
            no pairs to count.
        flops: returns F for a mean length.
        precision: of the matrix products that the peak is measured with.
    """

    def __init__(self, work: Work, columns: float, flops: Callable[[float], float], precision: str) -> None:
        self.work, self.columns, self.flops, self.precision = work, columns, flops, precision
        self.peak = 0.0
        self.spent = 0.0
        self.mark: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.peak = matmul_peak(torch.device(args.device), self.precision)
        self.work.take()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # do not count the matrices above

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.mark = time.perf_counter() if self.mark is None else self.mark

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.perf_counter()
        self.spent += now - (self.mark or now)
        self.mark = now

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is not None and "loss" in logs and self.spent > 0:
            logs.update(self.rates(self.work.take(), self.spent))
            self.spent = 0.0
        self.mark = time.perf_counter()  # what led to this log may have been an evaluation

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.mark = time.perf_counter()

    def rates(self, work: Work, seconds: float) -> dict[str, float]:
        """Returns the figures of some work that took `seconds`."""
        figures: dict[str, float] = {}
        if work.tokens:
            tokens = work.tokens / seconds
            if self.columns:
                figures["pairs_per_second"] = round(work.texts / self.columns / seconds, 2)
            figures |= {
                "tokens_per_second": round(tokens, 1),
                "padding_waste": round(work.padded / work.tokens - 1, 4),
            }
            if self.peak:
                length = work.squares / work.tokens
                figures["matmul_share"] = float(f"{3 * self.flops(length) * tokens / self.peak:.3g}")
        resident = resident_gb()
        if resident is not None:
            figures["memory_gb"] = round(resident, 3)
        if torch.cuda.is_available():
            figures["gpu_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
        return figures
