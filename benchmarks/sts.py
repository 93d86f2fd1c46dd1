"""Sentence similarity: our recipe compared with CoSENT and AnglE of sentence-transformers, from the same checkpoint.

    python benchmarks/sts.py [--seeds 3] [--systems NAMES] [--split dev|test] [--data FOLDER] [--work FOLDER]
        [--json FILE] [KEY=VALUE …]

Every system starts from MiniLM and trains on the 5,749 scored pairs of STS-B train for the same number of epochs:

- untouched
- stock CoSENT, stock AnglE: trainer and losses of sentence-transformers with common settings (batch 32, learning rate
  4e-5, linear, warm-up 10 %, the dropout of the checkpoint, 4 epochs), in the same precision as ours
- spectra: `spectra train recipes/sts-mini.yaml`, with any KEY=VALUE after it

Each trained model is saved, loaded and evaluated with `spectra eval`: Spearman on STS-B and, to detect losses
elsewhere, code search in the standard library (nDCG@10) and nearest-neighbor accuracy on CLINC150, both in bf16 if the
processor supports it. FOLDER contains `stsb` and `clinc150`; by default $SPECTRA_DATA, otherwise ../shared/data. Models
and results stay in WORK (by default runs/sts). Existing ones are reused, even if KEY=VALUE differs. Select settings
with `--split dev`, which skips the other two tasks; the test split is for the final figure.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import AnglELoss, CoSENTLoss

from spectra_nsa.core.files import read_json, write_json
from spectra_nsa.core.precision import resolve_precision
from spectra_nsa.core.results import environment
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.text.sources import load_source

STOCK = {"stock CoSENT": CoSENTLoss, "stock AnglE": AnglELoss}
EPOCHS, BATCH, RATE = 4, 32, 4e-5
RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "sts-mini.yaml"
MEASURES = {"sts": "spearman", "pairs": "ndcg@10", "knn": "accuracy"}


def spectra(*words: str | Path) -> str:
    """Runs a spectra command and returns its output."""
    done = subprocess.run([sys.executable, "-m", "spectra_nsa", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"spectra {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def train_stock(name: str, seed: int, folder: Path, data: Path) -> float:
    """Trains as the documentation of sentence-transformers does. Returns the seconds."""
    precision = resolve_precision("auto")
    model = SentenceTransformer(str(starter_checkpoint()[0]), device="cpu")
    rows = load_source(str(data / "stsb" / "train.jsonl.gz")).dataset
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "scratch"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        warmup_steps=0.1,
        bf16=precision == "bf16",
        seed=seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=STOCK[name](model))
    start = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - start
    model.save_pretrained(str(folder / "model"))
    return seconds


def train_ours(seed: int, folder: Path, data: Path, more: list[str]) -> float:
    """Trains with the recipe. Returns the seconds."""
    sources = [f"data.train={data / 'stsb' / 'train.jsonl.gz'}", f"data.dev={data / 'stsb' / 'dev.jsonl.gz'}"]
    run = [f"output={folder.parent}", f"name={folder.name}", f"train.seed={seed}"]
    return float(json.loads(spectra("train", RECIPE, *sources, *run, *more, "--json"))["seconds"])


def measure(model: str | Path, split: str, data: Path) -> dict[str, float]:
    """Returns task → figure for a saved model."""
    found = evaluated(model, "fp32", f"sts={data / 'stsb' / f'{split}.jsonl.gz'}")
    if split == "test":
        clinc = data / "clinc150"
        others = ["pairs=python:stdlib", f"knn={clinc / 'train.jsonl.gz'},{clinc / 'test.jsonl.gz'}"]
        found |= evaluated(model, "auto", *others)
    return found


def evaluated(model: str | Path, precision: str, *tasks: str) -> dict[str, float]:
    """Returns task → figure from `spectra eval`."""
    words = [word for task in tasks for word in ("--task", task)]
    results = json.loads(spectra("eval", model, *words, "--precision", precision, "--json", "-"))["results"]
    return {row["task"]: row["value"] for row in results if MEASURES.get(row["task"]) == row["metric"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("more", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--systems", default="stock CoSENT,stock AnglE,spectra")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path("runs/sts"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    start = {"untouched": [{"seconds": 0.0, **measure(starter_checkpoint()[0], options.split, data)}]}
    found: dict[str, list[dict[str, Any]]] = start
    for seed in range(options.seeds):
        for name in options.systems.split(","):
            folder = work / f"{name.replace(' ', '-')}-{seed}"
            note = folder / f"{options.split}.json"
            if not note.exists():
                timed = folder / "seconds.json"
                if not timed.exists():
                    if name in STOCK:
                        seconds = train_stock(name, seed, folder, data)
                    else:
                        seconds = train_ours(seed, folder, data, options.more)
                    write_json(timed, seconds)
                write_json(note, {"seconds": read_json(timed), **measure(folder / "model", options.split, data)})
            found.setdefault(name, []).append(read_json(note))
            print(f"seed {seed}  {name:14} {json.dumps(found[name][-1])}", flush=True)
    show(found)
    if options.json:
        write_json(options.json, {"systems": found, "split": options.split, "environment": environment()})


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    """Prints mean ± standard deviation over seeds."""
    print(f"\n{'':16}{'STS-B':>18}{'code search':>18}{'CLINC150 k-NN':>18}{'seconds':>10}")
    for name, runs in found.items():
        cells = []
        for task in MEASURES:
            values = [run[task] for run in runs if task in run]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}" if values else "")
        seconds = statistics.mean(run["seconds"] for run in runs)
        print(f"{name:16}{cells[0]:>18}{cells[1]:>18}{cells[2]:>18}{seconds:>10.0f}")


if __name__ == "__main__":
    main()
