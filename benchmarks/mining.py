"""The time and memory of mining hard negatives for many pairs.

    python benchmarks/mining.py [--rows 100000] [--width 384] [--model MODEL] [--stock] [--json FILE]

Writes a file of pairs of random words (one text of 4 to 12, one of 20 to 60) and mines it as `spectra mine` does, in a
separate process with a separate cache: first with an empty cache, then with different rules, for which vectors and hits
are cached. By default MODEL is a table of random word vectors, so that the search is measured and not the encoding.
`--stock` runs mine_hard_negatives of sentence-transformers on the same pairs; watch its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from spectra_nsa.core.memory import peak_memory_gb
from spectra_nsa.core.results import environment

WORDS = 2_000
RULES: dict[str, Any] = {"negatives": 3, "range_max": 30}


def words() -> list[str]:
    source = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return sorted({"".join(source.choices(letters, k=source.randint(3, 9))) for _ in range(WORDS)})


def write_pairs(path: Path, rows: int) -> None:
    """Writes a JSON Lines file of pairs. A positive contains most of the words of its anchor."""
    source, known = random.Random(1), words()
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            anchor = source.choices(known, k=source.randint(4, 12))
            positive = [*source.choices(known, k=source.randint(16, 50)), *anchor[2:]]
            file.write(json.dumps({"anchor": " ".join(anchor), "positive": " ".join(positive)}) + "\n")


def write_model(folder: Path, width: int) -> Path:
    """Writes a sentence-transformers model that averages random word vectors."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(["[UNK]", *words()])}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = StaticEmbedding(tokenizer, embedding_dim=width)
    SentenceTransformer(modules=[table], device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"


def ours(source: str, model: str, output: str, rules: dict[str, Any]) -> dict[str, Any]:
    from spectra_nsa.workflows.mine.run import mine

    return mine(source, model, output, say=lambda line: print(line, file=sys.stderr, flush=True), **rules)


def stock(source: str, model: str) -> dict[str, Any]:
    from datasets import load_dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    start = time.perf_counter()
    rows = load_dataset("json", data_files=source, split="train")
    options = {"num_negatives": RULES["negatives"], "range_max": RULES["range_max"]}
    opened = SentenceTransformer(model)
    found = mine_hard_negatives(rows, opened, output_format="n-tuple", verbose=False, **options)
    return {"written": len(found), "seconds": time.perf_counter() - start, "peak_memory_gb": peak_memory_gb()}


def measure(folder: Path, model: str, kind: str) -> dict[str, Any]:
    """Mines once, in a separate process."""
    command = [sys.executable, __file__, "--one", kind, str(folder / "pairs.jsonl"), model, str(folder / "mined.jsonl")]
    variables = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HOME": str(folder / "hub")}
    answer = subprocess.run(command, env=variables, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--model")
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, source, model, output = options.one
        rules = RULES | ({"relative_margin": 0.05} if kind == "other rules" else {})
        print(json.dumps(stock(source, model) if kind == "stock" else ours(source, model, output, rules)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "pairs.jsonl", options.rows)
        model = options.model or str(write_model(folder, options.width))
        found: dict[str, Any] = {"environment": environment(), "rows": options.rows}
        for kind in ("first", "other rules", *(["stock"] if options.stock else [])):
            one = found[kind] = measure(folder, model, kind)
            written = one["written"] if kind == "stock" else one["counts"]["written"]
            print(
                f"{kind:12} {options.rows:,} pairs: {written:,} rows, {one['seconds']:.0f} s, "
                f"{one['peak_memory_gb']:.2f} GB resident at the peak",
                flush=True,
            )
        kept = sum(path.stat().st_size for path in (folder / "cache").rglob("*.npz"))
        print(f"on disk: {kept / 1e6:.0f} MB of vectors and hits")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
