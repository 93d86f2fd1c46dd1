"""Your own edge model, from texts to codes: the steps of recipes/nexus-240m.yaml with nexus-mini, by the commands.

    python examples/02_edge_model.py [--source SOURCE …] [--data FOLDER] [--work FOLDER] [--quick]
        [--steps N] [--rows N] [--limit N]

tokenizer   `spectra tokenizer train`: a unigram vocabulary of 8,000 pieces
student     `spectra distill`: size nexus-mini, with token vectors from MiniLM. It learns the vectors of MiniLM in N
            steps of 64 pairs. Semantic and entity vectors also learn from the pairs, and the codes from the vectors
blank       the same from random weights, to show the effect of the token vectors
pretrained  `spectra pretrain`: masked LM from random weights, N steps of 32 sequences of 128 tokens
late        the same student from the pretrained model, to show the effect of pretraining
edge        `spectra codes fit`: the codes of the student, fitted to functions of the standard library
teacher-edge  the same for MiniLM
measured    `spectra eval`: STS-B dev, and code search in the standard library, compared with MiniLM

SOURCE is any source of texts or pairs. Without pairs, the terms that need them are inactive. The default sources are
the Python packages on this machine and, if they exist in FOLDER ($SPECTRA_DATA), wiki_split, medquad, tldr_commands,
classic_books, peps_rfcs and stsb. Without stsb only code search is measured. Near duplicates of texts in the standard
library are not used for training. Nothing is downloaded.

A finished stage is skipped. A stopped stage resumes, and its time counts from the resume. Times include the start of
each command. WORK (by default runs/edge) receives `results.json` and `results.md`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from spectra_nsa.core.files import atomic_write, read_json, write_json

TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
SIZE, LENGTH, CUT = (
    "nexus-mini",
    128,
    400,
)  # preset, maximum tokens of a text, maximum characters of a text for distillation
PAIRS = ("wiki_split", "medquad", "tldr_commands")
PLAIN = ("classic_books", "peps_rfcs")  # no pairs: only for tokenizer and pretraining
FIGURES = (("sts", "spearman", "STS-B dev, Spearman"), ("pairs", "ndcg@10", "code search, nDCG@10"))
TERMS = {"semantic": 0.2, "entity": 1, "fast": 0.1, "bridge": 1}  # the terms of the teacher have weight 1


def spectra(*words: str | Path) -> tuple[str, float, float]:
    """Runs a command and returns its output, its seconds, and its peak resident memory in GB."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen([sys.executable, "-m", "spectra_nsa", *map(str, words)], stdout=output)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"spectra {' '.join(map(str, words))}: exit status {child.returncode}")
        output.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024
        return output.read(), time.monotonic() - start, usage.ru_maxrss * unit / 1e9


def stage(work: Path, name: str, *words: str | Path, resumed_by: str | None = None) -> dict[str, Any]:
    """Runs a command that prints JSON, once. Its output, time and memory are stored in `WORK/NAME.json`."""
    note = work / f"{name}.json"
    if not note.exists():
        if resumed_by is not None and (work / name / "recipe.yaml").exists():
            words = (resumed_by, "--resume", work / name)
        output, seconds, memory = spectra(*words, "--json")
        facts = json.loads(output.strip().splitlines()[-1])
        write_json(note, {"seconds": round(seconds, 1), "memory_gb": round(memory, 2), "said": facts})
    found: dict[str, Any] = read_json(note)
    print(f"{name:12} {found['seconds']:7.0f} s {found['memory_gb']:6.2f} GB", flush=True)
    return found


def write_texts(sources: Sequence[str], plain: Sequence[str], rows: int, limit: int, work: Path) -> None:
    """Writes `pretrain.jsonl` (texts), `learn.jsonl` (pairs, or texts if a source has none), `functions.jsonl`."""
    from spectra_nsa.text.duplicates import near_duplicates
    from spectra_nsa.text.readers.python_env import environment_pairs
    from spectra_nsa.text.sources import load_source

    test = environment_pairs("stdlib").dataset
    found: list[tuple[str, ...]] = []
    for source in sources:
        data = load_source(source)
        own_rows = list(zip(*(data.dataset[name][:] for name in data.text_columns), strict=True))
        found += own_rows[:: max(1, len(own_rows) * len(sources) // rows)]
    seen = [False] * len(found)
    for index, column in ((0, "anchor"), (-1, "positive")):
        near = near_duplicates([row[index] for row in found], list(test[column]))
        seen = [before or bool(now) for before, now in zip(seen, near, strict=True)]
    found = [row for row, duplicate in zip(found, seen, strict=True) if not duplicate]
    paired = all(len(row) > 1 for row in found)
    learn = [{"anchor": row[0][:CUT], "positive": row[1][:CUT]} if paired else {"text": row[0][:CUT]} for row in found]
    texts = [text for row in found for text in row]
    for source in plain:
        own_texts = load_source(source).dataset["text"][:]
        texts += own_texts[:: max(1, len(own_texts) * (len(sources) + 1) // rows)]
    functions = [{"text": text} for text in dict.fromkeys(test["positive"][:limit])]
    for name, lines in (("pretrain", [{"text": text} for text in texts]), ("learn", learn), ("functions", functions)):
        with atomic_write(work / f"{name}.jsonl") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def train(work: Path, steps: int) -> dict[str, dict[str, Any]]:
    """Runs the stages from the vocabulary to the codes."""
    every = max(50, steps // 4)
    length = [f"train.max_steps={steps}", f"train.evaluate_every={every}", f"train.checkpoint_every={every}"]
    tokenizer, fresh = work / "tokenizer", [f"model.size={SIZE}", f"model.tokenizer={work / 'tokenizer'}"]
    terms = [f"loss.terms.{name}.weight={weight}" for name, weight in TERMS.items()]
    distil = ["distill", TEACHER, work / "learn.jsonl", *terms, *length, "train.max_length=64"]
    done = {}
    done["tokenizer"] = stage(
        work, "tokenizer", "tokenizer", "train", work / "pretrain.jsonl", "--output", tokenizer,
        "--vocab-size", "8000", "--max-length", str(LENGTH),
    )  # fmt: skip
    starts = {"student": fresh, "blank": [*fresh, "model.token_vectors=null"]}
    for name, start in starts.items():
        done[name] = stage(work, name, *distil, *start, "--output", work / name, resumed_by="distill")
    done["pretrained"] = stage(
        work, "pretrained", "pretrain", *fresh, "--data", work / "pretrain.jsonl", *length, "train.batch=32",
        "train.lr=1e-3", "name=pretrained", f"output={work}", resumed_by="pretrain",
    )  # fmt: skip
    late = ["model.keep_layers=null", f"model.start={work / 'pretrained' / 'model'}"]
    done["late"] = stage(work, "late", *distil, *late, "--output", work / "late", resumed_by="distill")
    for name, model in (("edge", work / "student" / "model"), ("teacher-edge", TEACHER)):
        words = ["codes", "fit", model, "--corpus", work / "functions.jsonl", "--output", work / name]
        done[name] = stage(work, name, *words)
    return done


def measure(work: Path, tasks: Sequence[str], limit: int) -> dict[str, Any]:
    """Evaluates each model with `spectra eval` and returns the document it writes."""
    path, note = work / "measured.document.json", work / "measured.json"
    if not note.exists():
        others = [*(work / name / "model" for name in ("blank", "late", "pretrained")), TEACHER]
        words = [word for task in tasks for word in ("--task", task)]
        words += [word for other in others for word in ("--baseline", str(other))]
        _, seconds, memory = spectra("eval", work / "edge", *words, "--limit", str(limit), "--json", path)
        write_json(note, {"seconds": round(seconds, 1), "memory_gb": round(memory, 2)})
    return {**read_json(note), "said": read_json(path)}


def recall(codes: dict[str, Any]) -> str:
    found = codes["said"]["after"]
    return ", ".join(f"{bits} bits {found[bits]['asymmetric']:.3f}" for bits in found)


def gains(done: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Describes the result of each stage."""
    words, masked = done["tokenizer"]["said"], done["pretrained"]["said"]
    per_word = {row["system"]: row["value"] for row in words["results"] if row["metric"] == "fertility"}
    pieces = ", ".join(f"{name} {value:.2f}" for name, value in per_word.items())
    before, after = (next(iter(masked[key].values()), float("nan")) for key in ("start", "best"))
    results = {
        "tokenizer": f"{words['pieces']:,} pieces; pieces per word: {pieces}",
        "pretrained": f"held-out perplexity {before:,.0f} → {after:,.0f} in {masked['steps']} steps",
    }
    for name in ("student", "blank", "late"):
        said = done[name]["said"]
        alike = f"agrees with MiniLM to {said['agreement']:.3f}, {said['speed']:.1f} × its speed"
        results[name] = f"{said['steps']} steps; {alike}"
    for name in ("edge", "teacher-edge"):
        results[name] = f"of the ten nearest, among the first 100: {recall(done[name])}"
    return results | {"measured": "see the table below"}


def page(done: dict[str, dict[str, Any]]) -> str:
    """Returns two tables: the stages, and the models."""
    lines = ["| stage | seconds | peak GB | result |", "|---|---|---|---|"]
    results_by_stage = gains(done)
    for name, facts in done.items():
        lines.append(f"| {name} | {facts['seconds']:.0f} | {facts['memory_gb']:.2f} | {results_by_stage[name]} |")
    results = done["measured"]["said"]["results"]
    figures = {(row["system"], row["task"]): row for row in results if (row["task"], row["metric"]) in _MEASURED}
    kinds = [kind for kind in FIGURES if any(task == kind[0] for _, task in figures)]
    lines += ["", "| model | " + " | ".join(head for *_, head in kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for system in dict.fromkeys(system for system, _ in figures):
        cells = []
        for task, _, _ in kinds:
            row = figures[system, task]
            low, high = row["ci"]
            cells.append(f"{row['value']:.3f} ({low:.3f}–{high:.3f})")
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_MEASURED = {(task, metric) for task, metric, _ in FIGURES}


def settle(work: Path, options: argparse.Namespace) -> None:
    """Refuses a folder that was started with different options, because its stages would not match."""
    current = {name: str(value) for name, value in vars(options).items() if name != "work"}
    note = work / "options.json"
    if note.exists() and read_json(note) != current:
        raise SystemExit(f"{work} was started with other options ({read_json(note)}). Use a different --work.")
    work.mkdir(parents=True, exist_ok=True)
    write_json(note, current)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", help="texts or pairs; may be repeated")
    parser.add_argument("--data", type=Path, default=os.environ.get("SPECTRA_DATA"))
    parser.add_argument("--work", type=Path, default=Path("runs/edge"))
    parser.add_argument("--steps", type=int, default=400, help="steps of pretraining and of each distillation")
    parser.add_argument("--rows", type=int, default=20_000, help="training rows, over all sources")
    parser.add_argument("--limit", type=int, default=1_000, help="the number of functions to search")
    parser.add_argument("--quick", action="store_true", help="a run of minutes: 4 steps, 1,000 rows, 600 functions")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.rows, options.limit = 4, 1_000, 600
    work, data = options.work.resolve(), options.data or Path("absent")
    settle(work, options)
    there = {name: str(path) for name in (*PAIRS, *PLAIN) if (path := data / name / "train.jsonl.gz").exists()}
    sources = options.source or ["python:installed", *(there[name] for name in PAIRS if name in there)]
    plain = [] if options.source else [there[name] for name in PLAIN if name in there]
    if not (work / "functions.jsonl").exists():
        # In a separate process, because the peak memory of a child includes that of its parent.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(write_texts, sources, plain, options.rows, options.limit, work).result()
    done = train(work, options.steps)
    sts = data / "stsb" / "dev.jsonl.gz"
    tasks = [*([f"sts={sts}"] if sts.exists() else []), "pairs=python:stdlib"]
    done["measured"] = measure(work, tasks, options.limit)
    write_json(work / "results.json", done)
    with atomic_write(work / "results.md") as file:
        file.write(page(done))
    print(f"\n{page(done)}\n{work / 'results.md'}, {work / 'results.json'}")


if __name__ == "__main__":
    main()
