"""A profile of a training step: MiniLM, batches of 64 pairs, all heads and terms that are on by default.

    python benchmarks/step_profile.py [--steps 4] [--length 128] [--changes KEY=VALUE ...] [--json FILE]

torch.profiler records a few steps of the real trainer on docstrings and functions of the standard library. The self
time of an operator, without the operators it calls, counts for the section of code it is called from (tokenizing,
heads, loss, optimizer, batching), otherwise for the group of its name. An operator of the backward pass counts for the
section of its forward operator. The rest is Python and gaps between operators. The profiler slows the steps down, by
how much is in the first line, so read shares and not seconds.

Padding is not a group: the share of computed tokens that are padding is printed next to the table.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.precision import resolve_precision
from spectra_nsa.core.results import environment
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.losses import stack
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.models.model import SpectraModel
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.tokens import length_batches
from spectra_nsa.tokens.length_batches import Work
from spectra_nsa.training.data.rows import TrainingData
from spectra_nsa.training.init.rarity import fit_rarity
from spectra_nsa.training.init.start import open_start
from spectra_nsa.training.jobs.pairs import build_trainer
from spectra_nsa.training.loop.pairs_trainer import PairsTrainer
from spectra_nsa.training.loop.plan import RunSetup

WARM_UP = 3
ALL = "all profiled steps"
SECTIONS = ("tokenizing", "batching", "heads", "loss", "clipping and checks")
BY_NAME = (  # the first group with a fragment in the name of the operator
    ("attention backward", ("attention_for_cpu_backward", "attention_backward", "attention_math_backward")),
    ("attention forward", ("scaled_dot_product", "flash_attention", "efficient_attention")),
    ("matmul", ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn_linear", "aten::linear")),
    ("GELU", ("gelu",)),
    ("LayerNorm", ("layer_norm",)),
    ("embeddings", ("embedding", "index_put", "index_add")),
    ("copies and casts", ("copy_", "_to_copy", "aten::cat", "aten::contiguous", "aten::clone", "aten::to")),
    ("sums and additions", ("aten::add", "aten::sum", "aten::mul", "aten::div")),
    ("zeros and fills", ("zero", "fill_", "empty", "new_")),
)


def group_of(name: str) -> str:
    """Returns the group of an operator outside the named sections."""
    return next((group for group, pieces in BY_NAME if any(piece in name for piece in pieces)), "other operators")


def within(section: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with its operators marked as part of a section."""

    @functools.wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        with record_function(section):
            return function(*args, **kwargs)

    return marked


def section_of(event: Any) -> str | None:
    """Returns the innermost named section around an event."""
    above = event
    while above is not None:
        if above.name in SECTIONS:
            return str(above.name)
        if above.name.startswith("Optimizer."):
            return "optimizer"
        above = above.cpu_parent
    return None


def shares(events: list[Any], total: float) -> dict[str, float]:
    """Returns group → share of the time of the profiled steps, largest first."""
    sections = [section_of(event) for event in events]
    # Operators without gradient share the sequence number of the next one with gradient: the last one made the node.
    forward = {
        (event.sequence_nr, event.thread): section
        for event, section in sorted(zip(events, sections, strict=True), key=lambda pair: pair[0].time_range.start)
        if event.sequence_nr >= 0 and not event.name.startswith("autograd::")
    }
    spent: dict[str, float] = defaultdict(float)
    for event, section in zip(events, sections, strict=True):
        if event.name == ALL or event.name in SECTIONS:
            group = section or "Python and gaps"
        else:
            group = section or _forward_section(event, forward) or group_of(event.name)
        spent[group] += event.self_cpu_time_total
    return dict(sorted(((group, value / total) for group, value in spent.items()), key=lambda pair: -pair[1]))


def _forward_section(event: Any, forward: dict[tuple[int, int], str | None]) -> str | None:
    """Returns the section of the forward operator of a backward event."""
    above = event
    while above is not None:
        if above.name.startswith("autograd::engine"):
            return forward.get((above.sequence_nr, above.fwd_thread))
        above = above.cpu_parent
    return None


class Steps(TrainerCallback):
    """Starts the profiler after the warm-up and half of the other steps, and stops it at the end."""

    def __init__(self, profiler: profile, after: int, work: Work) -> None:
        self.profiler, self.after, self.work = profiler, after, work
        self.all = record_function(ALL)
        self.moments: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.moments.append(time.perf_counter())
        if state.global_step == self.after:
            self.work.take()
            self.profiler.start()
            self.all.__enter__()
        if state.global_step == state.max_steps:
            self.all.__exit__(None, None, None)
            self.profiler.stop()


def recipe_of(options: argparse.Namespace, start: Path) -> Recipe:
    """Returns the default recipe without evaluation and monitoring."""
    steps = WARM_UP + 2 * options.steps
    values = [
        f"model.start={start}", f"model.max_length={options.length}", f"train.max_steps={steps}", "train.batch=64",
        f"train.precision={options.precision}", f"train.log_every={10 * steps}", "monitor.rows=0", "data.dev_rows=0",
    ]  # fmt: skip
    return load_recipe(None, [*values, *options.changes])


def mark(trainer: PairsTrainer) -> None:
    """Marks the sections of code to which operators are assigned."""
    collate = trainer.data_collator.__class__
    collate.__call__ = within("tokenizing", collate.__call__)  # type: ignore[method-assign]
    SpectraModel.apply_heads = within("heads", SpectraModel.apply_heads)  # type: ignore[method-assign]
    LossStack._weighted = within("loss", LossStack._weighted)  # type: ignore[method-assign]
    stack._check_outputs = within("loss", stack._check_outputs)
    for name in ("build_batch", "join_passes", "plan_passes"):
        setattr(length_batches, name, within("batching", getattr(length_batches, name)))
    accelerator: Any = trainer.accelerator
    accelerator.clip_grad_norm_ = within("clipping and checks", accelerator.clip_grad_norm_)
    for callback in trainer.callback_handler.callbacks:
        if hasattr(callback, "passed"):
            callback.on_pre_optimizer_step = within("clipping and checks", callback.on_pre_optimizer_step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--changes", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--top", type=int, default=25, help="how many single operators to list")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start, _ = starter_checkpoint()
    rows = environment_pairs("stdlib").dataset.shuffle(seed=0).select_columns(["anchor", "positive"])
    recipe = recipe_of(options, start)
    set_seed(0)
    model = open_start(recipe)
    fit_rarity(model, rows)
    profiler = profile(activities=[ProfilerActivity.CPU], acc_events=True)
    with tempfile.TemporaryDirectory() as folder:
        data = TrainingData(train=rows, dev=None, dev_kind=None, quarantined=0)
        trainer = build_trainer(recipe, model, data, RunSetup(folder=Path(folder)))
        trainer.args.save_strategy = SaveStrategy.NO
        steps = Steps(profiler, WARM_UP + options.steps, trainer.stack.work)
        trainer.add_callback(steps)
        mark(trainer)
        trainer.train_from(None)
    report(options, profiler, steps)


def report(options: argparse.Namespace, profiler: profile, steps: Steps) -> None:
    seconds = [after - before for before, after in zip(steps.moments, steps.moments[1:], strict=False)]
    plain = statistics.median(seconds[WARM_UP - 1 : WARM_UP - 1 + options.steps])
    profiled = statistics.median(seconds[WARM_UP - 1 + options.steps :])
    events = [event for event in profiler.events() or [] if not event.is_async]
    total = sum(event.cpu_time_total for event in events if event.name == ALL)
    found = shares(events, total)
    padding = 1 - steps.work.tokens / max(1, steps.work.padded)
    where = f"{resolve_precision(options.precision)}, {torch.get_num_threads()} threads"
    print(f"{plain:.2f} s per step, {profiled:.2f} s with the profiler; {where}")
    print(f"{options.steps} steps of 64 pairs of at most {options.length} tokens")
    print(f"{padding:.1%} of the computed tokens are padding\n")
    for group, share in found.items():
        print(f"{group:24} {share:6.1%}")
    print(f"{'accounted for':24} {sum(found.values()):6.1%}\n")
    by_name: dict[str, list[float]] = defaultdict(list)
    for event in events:
        by_name[event.name].append(event.self_cpu_time_total)
    for name, times in sorted(by_name.items(), key=lambda pair: -sum(pair[1]))[: options.top]:
        print(f"  {sum(times) / total:6.1%} {len(times) / options.steps:7.0f} per step  {name}")
    if options.json:
        document = {"environment": environment(), "seconds_a_step": plain, "padding": padding, "shares": found}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
