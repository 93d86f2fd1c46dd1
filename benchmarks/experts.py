"""Experts beside a dense twin of equal active width: CPU time of one layer's networks and of a whole encoder.

    python benchmarks/experts.py [--experts 8] [--rounds 7] [--json FILE]

The dense twin computes no padding either, because no text is padded. Ratios are the twin's time by that of the experts,
so 1.0 is as fast and 0.5 takes twice as long: the median over the rounds, in each of which the two alternate, one
thread. `sliced` has two half-wide experts for each token; `top 2` has two of full width, and its twin is twice as wide.

    networks   width 384, inner width 1,536, forward, and forward with backward
    encoder    MiniLM's shape, 64 texts of 48 tokens (3,072 a pass) forward with backward, and one query of 8 forward
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from spectra_nsa.core.files import write_json
from spectra_nsa.core.results import environment
from spectra_nsa.encoder.context import make_context
from spectra_nsa.encoder.encoder import Encoder, build_ffn
from spectra_nsa.encoder.experts.spec import ExpertSpec
from spectra_nsa.encoder.spec import EncoderSpec

TOKENS = (16, 256, 2_048, 8_192)
MINILM = EncoderSpec(
    vocab_size=30_522, hidden_size=384, layers=6, heads=12, ffn_size=1_536, hidden_dropout=0.0, attention_dropout=0.0
)
WAYS: dict[str, dict[str, Any]] = {"top 1": {}, "sliced": {"top_k": 2, "sliced": True}, "top 2": {"top_k": 2}}
FORMATS = {"fp32": nullcontext, "bf16": lambda: torch.autocast("cpu", torch.bfloat16)}


def ratio(twin: Callable[[], None], ours: Callable[[], None], rounds: int) -> float:
    """Returns the median over the rounds of the twin's CPU time by ours; short work is repeated."""
    repeats = max(1, int(0.03 / max(_seconds(twin, 1), 1e-6)))
    _seconds(ours, 1)
    return statistics.median(_seconds(twin, repeats) / _seconds(ours, repeats) for _ in range(rounds))


def _seconds(work: Callable[[], None], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def networks(experts: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yields the ratios of one layer's networks."""
    for way, settings in WAYS.items():
        spec = replace(MINILM, ffn="moe", experts=ExpertSpec(count=experts, **settings))
        wide = 2 * MINILM.ffn_size if way == "top 2" else MINILM.ffn_size
        pair = build_ffn(replace(MINILM, ffn_size=wide), 0), build_ffn(spec, 0)
        for name, enter in FORMATS.items():
            for tokens in TOKENS:
                x_BTD = torch.randn(1, tokens, 384)
                context = make_context(torch.ones(1, tokens), None)
                for backward in (False, True):
                    work = [
                        _step(lambda x, ffn=ffn, context=context: ffn(x, context)[0], x_BTD, enter, backward)
                        for ffn in pair
                    ]
                    yield {
                        "part": "networks", "way": way, "format": name, "tokens": tokens, "backward": backward,
                        "ratio": round(ratio(*work, rounds), 2),
                    }  # fmt: skip


def encoders(experts: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yields the ratios of whole encoders."""
    dense = Encoder(MINILM)
    for way in ("top 1", "sliced"):
        for every in (1, 2):
            spec = replace(MINILM, ffn="moe", experts=ExpertSpec(count=experts, every=every, **WAYS[way]))
            pair = dense, Encoder(spec)
            for name, enter in FORMATS.items():
                for texts, length, backward in ((64, 48, True), (1, 8, False)):
                    ids_BT = torch.randint(1, 30_000, (texts, length))
                    mask_BT = torch.ones_like(ids_BT)
                    work = [
                        _step(lambda ids, one=one, mask=mask_BT: one(ids, mask).states[-1], ids_BT, enter, backward)
                        for one in pair
                    ]
                    yield {
                        "part": "encoder", "way": way, "every": every, "format": name, "tokens": texts * length,
                        "backward": backward, "ratio": round(ratio(*work, rounds), 2),
                    }  # fmt: skip


def _step(
    run: Callable[[Tensor], Tensor], inputs: Tensor, enter: Callable[[], Any], backward: bool
) -> Callable[[], None]:
    gradient: list[Tensor] = []

    def step() -> None:
        if backward:
            with enter():
                out = run(inputs)
            if not gradient:
                gradient.append(torch.randn_like(out))
            out.backward(gradient[0])
        else:
            with torch.no_grad(), enter():
                run(inputs)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console, rows = Console(width=110), []
    for measure in (networks, encoders):
        table = Table("way", "every", "format", "tokens", "backward", "dense / experts", title=measure.__name__)
        for row in measure(options.experts, options.rounds):
            rows.append(row)
            every, backward = str(row.get("every", "")), "yes" if row["backward"] else "no"
            table.add_row(row["way"], every, row["format"], f"{row['tokens']:,}", backward, f"{row['ratio']:.2f}")
        console.print(table)
    if options.json:
        write_json(options.json, {"environment": environment(), "experts": options.experts, "rows": rows})


if __name__ == "__main__":
    main()
