"""The vocabulary head of a sparse encoder: ours, pooled before activation, against the library's `SpladePooling`.

    python benchmarks/sparse_pooling.py [--shapes 8x32 32x128] [--active 40 200] [--rounds 3]

Both get the same states (B, T, D) of a decoder's shape: `tiny` has D = 128, MiniLM 384, both V = 30,522. The bias is
set so that a text has about as many active terms as asked. Passes are interleaved; a time is the median of the rounds
in CPU seconds of one thread. The memory is the largest sum of live tensors that a pass adds, counted by torch's
profiler, so it does not depend on the allocator.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import Tensor
from torch.nn.functional import linear
from torch.profiler import ProfilerActivity, profile

from spectra_nsa.core.precision import autocast
from spectra_nsa.models.sparse.pooling import max_logits, max_relu_logits

WIDTHS = {"tiny": 128, "MiniLM": 384}
VOCABULARY = 30_522
Head = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
_library = SpladePooling("max")


def ours(states: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Computes (B, V) vectors without the logits of all tokens."""
    return max_relu_logits(states, mask, weight, bias).log1p()


def library(states: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Computes the same vectors from all logits."""
    features = {"token_embeddings": linear(states, weight, bias), "attention_mask": mask}
    return _library(features)["sentence_embedding"]


def run(head: Head, inputs: tuple[Tensor, ...], precision: str, *, backward: bool) -> float:
    """Runs one pass and returns its CPU seconds."""
    start = time.process_time()
    with torch.set_grad_enabled(backward), autocast("cpu", precision):
        vectors = head(*inputs)
    if backward:
        vectors.float().square().sum().backward()
        for tensor in inputs:
            tensor.grad = None
    return time.process_time() - start


def peak_bytes(work: Callable[[], object]) -> int:
    """Returns the largest sum of bytes that a piece of work holds at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    live = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    return most


def case(width: int, batch: int, length: int, active: int) -> tuple[Tensor, ...]:
    """Returns states, mask, weight and bias; lengths vary from half to full."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(batch, length, width, generator=generator)
    lengths = torch.randint(length // 2, length + 1, (batch, 1), generator=generator)
    mask = (torch.arange(length) < lengths).long()
    weight = torch.randn(VOCABULARY, width, generator=generator) / width**0.5
    logits = max_logits(states, mask, weight, None)
    bias = torch.full((VOCABULARY,), -float(logits.flatten().topk(batch * active).values[-1]))
    return states.requires_grad_(), mask, weight.requires_grad_(), bias.requires_grad_()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(WIDTHS), default=list(WIDTHS))
    parser.add_argument("--shapes", nargs="+", default=["8x32", "32x128"], help="texts x tokens")
    parser.add_argument("--active", type=int, nargs="+", default=[40, 200])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | B × T | active | format | pass | library | ours | times faster | library MB | ours MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for model, shape, active in itertools.product(options.models, options.shapes, options.active):
        batch, length = map(int, shape.split("x"))
        inputs = case(WIDTHS[model], batch, length, active)
        for precision, backward in itertools.product(("fp32", "bf16"), (False, True)):
            row = compare(inputs, precision, backward=backward, rounds=options.rounds)
            name = "forward + backward" if backward else "forward"
            print(f"| {model} | {batch} × {length} | {active} | {precision} | {name} | {row}", flush=True)


def compare(inputs: tuple[Tensor, ...], precision: str, *, backward: bool, rounds: int) -> str:
    """Measures both heads and returns the cells of a row; the vectors must agree."""
    with torch.no_grad(), autocast("cpu", precision):
        torch.testing.assert_close(
            ours(*inputs), library(*inputs).float(), rtol=1e-3, atol=6e-2 if precision == "bf16" else 1e-4
        )
    times: dict[str, list[float]] = {"library": [], "ours": []}
    heads: dict[str, Head] = {"library": library, "ours": ours}
    for _ in range(rounds):
        for name, head in heads.items():
            times[name].append(run(head, inputs, precision, backward=backward))
    seconds = {name: statistics.median(each) for name, each in times.items()}
    bytes_ = {
        name: peak_bytes(lambda head=head: run(head, inputs, precision, backward=backward))
        for name, head in heads.items()
    }
    faster = seconds["library"] / seconds["ours"]
    cells = [f"{seconds[name] * 1e3:,.0f} ms" for name in heads] + [f"{faster:.1f}"]
    return " | ".join([*cells, *(f"{bytes_[name] / 1e6:,.0f}" for name in heads)]) + " |"


if __name__ == "__main__":
    main()
