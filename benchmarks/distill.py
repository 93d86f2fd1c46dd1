"""The quality and speed of two students distilled from all-MiniLM-L6-v2: one with three layers, one static.

    python benchmarks/distill.py [--pairs 40000] [--layers 3] [--split dev|test] [--limit N] [--data FOLDER]
        [--work FOLDER] [--json FILE] [KEY=VALUE …]

The students learn only from the vectors of the teacher. Three quarters of the rows are docstrings of the installed
packages with their functions, without near duplicates of the standard library. A quarter are general sentences (STS-B
train, WikiSplit train and query well-formedness train), two arbitrary ones per row. Texts are cut at 400 characters.
The rows have no labels, but the two texts of a row are in the same batch, so the student learns how similar they are.
`spectra distill` makes both students, the second with `--static`. KEY=VALUE applies to the first, after the settings
selected on dev: batches of 16 rows, a learning rate of 3e-4 and two epochs.

The saved models are evaluated in the precision of training: Spearman on STS-B and nDCG@10 of code search in the
standard library (`--limit` pairs), each also relative to the teacher. For speed, the models alternate on the same 256
functions of the standard library in one process; the figure is the median of five rounds. FOLDER contains `stsb`,
`wiki_split` and `query_wellformedness`; by default $SPECTRA_DATA, otherwise ../shared/data. Models that exist in WORK
(by default runs/distill) are not trained again. Select settings with `--split dev`; the test split is for the final
figure. The exit status is 1 unless the student with layers keeps 97 % of both figures at 1.8 times the speed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from spectra_nsa.core.files import atomic_write, write_json
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.core.results import environment
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.evaluation.run import evaluate
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.evaluation.tasks import tasks_from
from spectra_nsa.models.teacher import open_teacher
from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.text.sources import load_source

GENERAL = ("stsb", "wiki_split", "query_wellformedness")
MEASURES = {"sts": "spearman", "pairs": "ndcg@10"}
KEPT, FASTER = 0.97, 1.8
ROUNDS, TIMED = 5, 256
CUT = 400  # characters of a training text
SETTINGS = ("train.batch=16", "train.lr=3e-4", "train.epochs=2")


def spectra(*words: str | Path) -> str:
    """Runs a spectra command and returns its output."""
    done = subprocess.run([sys.executable, "-m", "spectra_nsa", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"spectra {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def write_pairs(path: Path, size: int, data: Path) -> None:
    """Writes the training rows, drawn with a fixed seed."""
    general: list[str] = []
    for name in GENERAL:
        found = load_source(str(data / name / "train.jsonl.gz"))
        columns = ["anchor"] if name == "wiki_split" else list(found.text_columns)
        general += [text for column in columns for text in found.dataset[column]]
    general = list(dict.fromkeys(general))
    random.Random(0).shuffle(general)
    rows = list(zip(general[::2], general[1::2], strict=False))[: size // 4]
    pairs, test = environment_pairs("installed").dataset, environment_pairs("stdlib").dataset
    pairs = pairs.shuffle(seed=0).select(range(min(size - size // 4, len(pairs))))
    columns_of_pairs = {column: list(pairs[column]) for column in ("anchor", "positive")}
    seen = near_duplicates(columns_of_pairs["anchor"], list(test["anchor"])) | near_duplicates(
        columns_of_pairs["positive"], list(test["positive"])
    )
    rows += [
        pair
        for pair, duplicate in zip(zip(*columns_of_pairs.values(), strict=True), seen, strict=True)
        if not duplicate
    ]
    random.Random(1).shuffle(rows)
    with atomic_write(path) as file:
        file.writelines(json.dumps({"anchor": first[:CUT], "positive": second[:CUT]}) + "\n" for first, second in rows)


def measure(systems: list[DenseSystem], split: str, limit: int | None, data: Path) -> dict[str, dict[str, float]]:
    """Returns system → task → figure."""
    tasks, notes = tasks_from([f"sts={data / 'stsb' / f'{split}.jsonl.gz'}"])
    code, more = tasks_from(["pairs=python:stdlib"], limit=limit)
    results = evaluate([*systems], [*tasks, *code], notes=[*notes, *more]).results
    found: dict[str, dict[str, float]] = {}
    for row in results:
        if MEASURES.get(row.task) == row.metric:
            found.setdefault(row.system, {})[row.task] = row.value
    return found


def speeds(opened: dict[str, Any]) -> dict[str, float]:
    """Returns the speed of each model relative to the first, as the median over alternating rounds."""
    texts = random.Random(2).sample(list(environment_pairs("stdlib").dataset["positive"]), TIMED)
    seconds: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(ROUNDS):
        for name, model in opened.items():
            start = time.perf_counter()
            model.encode(texts, batch_size=64, show_progress_bar=False)
            seconds[name].append(time.perf_counter() - start)
    first = next(iter(seconds.values()))
    return {name: statistics.median(a / b for a, b in zip(first, own, strict=True)) for name, own in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("more", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path("runs/distill"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    teacher, source = starter_checkpoint()[0], work / "pairs.jsonl"
    if not source.exists():
        write_pairs(source, options.pairs, data)
    students = {
        f"{options.layers} layers": ["--layers", str(options.layers), *SETTINGS, *options.more],
        "static": ["--static"],
    }
    models: dict[str, str | Path] = {"teacher": teacher}
    seconds = {"teacher": 0.0}
    for name, words in students.items():
        folder = work / name.replace(" ", "-")
        note = folder / "made.json"
        if not note.exists():
            write_json(note, json.loads(spectra("distill", teacher, source, *words, "--output", folder, "--json")))
        models[name], seconds[name] = folder / "model", json.loads(note.read_text())["seconds"]
    opened = {name: open_teacher(folder).model for name, folder in models.items()}
    with autocast(opened["teacher"].device.type, resolve_precision("auto")):
        faster = speeds(opened)
        systems = [DenseSystem(name, model) for name, model in opened.items()]
        figures = measure(systems, options.split, options.limit, data)
    found: dict[str, dict[str, Any]] = {}
    for name, values in figures.items():
        found[name] = {**values, "speed": faster[name], "seconds": seconds[name]}
        kept = {task: value / figures["teacher"][task] for task, value in values.items()}
        found[name]["kept"] = kept
        scores = "  ".join(f"{task} {values[task]:.4f} ({kept[task]:.1%})" for task in MEASURES)
        print(f"{name:10} {scores}  {faster[name]:.2f} ×  made in {seconds[name]:.0f} s", flush=True)
    if options.json:
        facts = {"pairs": sum(1 for _ in source.open()), "split": options.split, "environment": environment()}
        write_json(options.json, {"systems": found, **facts})
    student = found[f"{options.layers} layers"]
    sys.exit(0 if min(student["kept"].values()) >= KEPT and student["speed"] >= FASTER else 1)


if __name__ == "__main__":
    main()
