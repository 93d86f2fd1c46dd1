"""The cost of each kind of attention: one encoder layer, forward and forward + backward, relative to the plain layer.

    python benchmarks/attention.py [--lengths 48 128 512] [--rounds 7]

Uses the width of MiniLM (384, 12 heads). Kinds are interleaved within each round, and the ratio is the median over
rounds. torch counts the FLOPs of one forward pass.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from spectra_nsa.core.precision import autocast
from spectra_nsa.encoder.encoder import Encoder
from spectra_nsa.encoder.spec import EncoderSpec

PLAIN = EncoderSpec(
    vocab_size=100, hidden_size=384, layers=2, heads=12, ffn_size=1536, hidden_dropout=0.0, attention_dropout=0.0
)
KINDS = {
    "plain": PLAIN,
    "spectral": dataclasses.replace(PLAIN, attention="spectral"),
    "spectral, entropy in every 2nd": dataclasses.replace(PLAIN, attention="spectral", entropy_every=2),
    "conv": dataclasses.replace(PLAIN, attention="spectral", mixer="conv"),
}


def step(encoder: Encoder, ids: torch.Tensor, mask: torch.Tensor, precision: str, *, backward: bool) -> None:
    """Runs one pass through the encoder."""
    with torch.set_grad_enabled(backward), autocast("cpu", precision):
        total = encoder(ids, mask).states[-1].float().sum()
    if backward:
        total.backward()


def flops(encoder: Encoder, ids: torch.Tensor, mask: torch.Tensor) -> int:
    """Counts the FLOPs of one forward pass, including the flash attention kernel of the CPU."""

    def of_flash(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    flash = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: of_flash}
    with FlopCounterMode(display=False, custom_mapping=flash) as counter:
        step(encoder, ids, mask, "fp32", backward=False)
    return counter.get_total_flops()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[48, 128, 512])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    encoders = {name: Encoder(spec) for name, spec in KINDS.items()}
    for length in options.lengths:
        ids = torch.randint(1, 100, (4, length))
        counts = {name: flops(encoder, ids, torch.ones_like(ids)) for name, encoder in encoders.items()}
        line = "  ".join(f"{name} {count / counts['plain']:.3f}" for name, count in counts.items() if name != "plain")
        per_token = counts["plain"] / ids.numel() / PLAIN.layers / 1e6
        print(f"FLOPs n={length:<4} plain {per_token:.2f} M per token and layer   × plain: {line}", flush=True)
    for precision in ("fp32", "bf16"):
        for length in options.lengths:
            rows = max(2, 3072 // length)
            ids = torch.randint(1, 100, (rows, length))
            mask = torch.ones_like(ids)
            mask[0, length // 2 :] = 0
            times: dict[tuple[str, str], list[float]] = {}
            for round_ in range(options.rounds + 1):
                for name, encoder in encoders.items():
                    for what in ("forward", "forward + backward"):
                        took = seconds(partial(step, encoder, ids, mask, precision, backward=what != "forward"))
                        if round_:
                            times.setdefault((name, what), []).append(took)
            for what in ("forward", "forward + backward"):
                plain = times["plain", what]
                line = "  ".join(
                    f"{name} {statistics.median(a / b for a, b in zip(times[name, what], plain, strict=True)):.2f}"
                    for name in KINDS
                    if name != "plain"
                )
                milliseconds = 1000 * statistics.median(plain)
                print(f"{precision} n={length:<4} {what:19} plain {milliseconds:6.1f} ms   × plain: {line}", flush=True)


if __name__ == "__main__":
    main()
