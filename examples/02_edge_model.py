"""An edge model of your own, from texts to codes: the way of recipes/nexus-240m.yaml with nexus-mini, by the commands.

    python examples/02_edge_model.py [--source SOURCE …] [--data FOLDER] [--work FOLDER] [--quick]
        [--steps N] [--rows N] [--limit N]

tokenizer   `spectra tokenizer train`: a unigram vocabulary of 8,000 pieces
student     `spectra distill`: size nexus-mini, its words begin with MiniLM's vectors; N steps on MiniLM's vectors of 64
            pairs each; semantic and entity vectors learn from the pairs besides, and the hash from its own vectors
blank       the same from random weights: what that beginning is worth
pretrained  `spectra pretrain`: masked LM from random weights, N steps of 32 sequences of 128 tokens
late        the same student from there: what pretraining is worth
edge        `spectra codes fit`: the student's hash, fitted to functions of the standard library
teacher-edge  the same of MiniLM
measured    `spectra eval`: STS-B dev, and code search in the standard library, beside MiniLM

SOURCE is any source of texts, or of pairs; without pairs the terms that need them are silent. By default the Python
packages on this machine, and of FOLDER ($SPECTRA_DATA) wiki_split, medquad, tldr_commands, classic_books, peps_rfcs
and stsb, as far as they are there; without stsb only code search is measured. No text that is nearly one of the
standard library's is learnt from. Nothing is downloaded.

A stage that is finished is not done again; one that was stopped goes on, and its time then counts from there. The
times hold the start of each command. WORK (by default runs/edge) gets `results.json` and `results.md`.
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
SIZE, LENGTH, CUT = "nexus-mini", 128, 400  # preset, longest text in tokens, characters of a text to distil on
PAIRS = ("wiki_split", "medquad", "tldr_commands")
PLAIN = ("classic_books", "peps_rfcs")  # of these no pairs: for tokenizer and pretraining alone
FIGURES = (("sts", "spearman", "STS-B dev, Spearman"), ("pairs", "ndcg@10", "code search, nDCG@10"))
TERMS = {"semantic": 0.2, "entity": 1, "fast": 0.1, "bridge": 1}  # beside the teacher's, which weigh 1 each


def spectra(*words: str | Path) -> tuple[str, float, float]:
    """What a command prints, its seconds, and its largest resident size in GB."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen([sys.executable, "-m", "spectra_nsa", *map(str, words)], stdout=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"spectra {' '.join(map(str, words))}: exit status {child.returncode}")
        said.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024
        return said.read(), time.monotonic() - began, usage.ru_maxrss * unit / 1e9


def stage(work: Path, name: str, *words: str | Path, resumed_by: str | None = None) -> dict[str, Any]:
    """Runs a command that prints JSON, once; what it said, its time and its memory are kept in `WORK/NAME.json`."""
    note = work / f"{name}.json"
    if not note.exists():
        if resumed_by is not None and (work / name / "recipe.yaml").exists():
            words = (resumed_by, "--resume", work / name)
        said, seconds, memory = spectra(*words, "--json")
        facts = json.loads(said.strip().splitlines()[-1])
        write_json(note, {"seconds": round(seconds, 1), "memory_gb": round(memory, 2), "said": facts})
    found: dict[str, Any] = read_json(note)
    print(f"{name:12} {found['seconds']:7.0f} s {found['memory_gb']:6.2f} GB", flush=True)
    return found


def write_texts(sources: Sequence[str], plain: Sequence[str], rows: int, limit: int, work: Path) -> None:
    """Writes `pretrain.jsonl` (texts), `learn.jsonl` (pairs, or texts where a source has none), `functions.jsonl`."""
    from spectra_nsa.text.duplicates import near_duplicates
    from spectra_nsa.text.readers.python_env import environment_pairs
    from spectra_nsa.text.sources import load_source

    test = environment_pairs("stdlib").dataset
    found: list[tuple[str, ...]] = []
    for source in sources:
        data = load_source(source)
        own = list(zip(*(data.dataset[name][:] for name in data.text_columns), strict=True))
        found += own[:: max(1, len(own) * len(sources) // rows)]
    seen = [False] * len(found)
    for place, column in ((0, "anchor"), (-1, "positive")):
        twice = near_duplicates([row[place] for row in found], list(test[column]))
        seen = [one or bool(other) for one, other in zip(seen, twice, strict=True)]
    found = [row for row, one in zip(found, seen, strict=True) if not one]
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
    """The stages from the vocabulary to the codes."""
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
    """What `spectra eval` says of each model: the document that it writes."""
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
    """What each stage gave, in words."""
    words, masked = done["tokenizer"]["said"], done["pretrained"]["said"]
    per_word = {row["system"]: row["value"] for row in words["results"] if row["metric"] == "fertility"}
    pieces = ", ".join(f"{name} {value:.2f}" for name, value in per_word.items())
    before, after = (next(iter(masked[key].values()), float("nan")) for key in ("start", "best"))
    told = {
        "tokenizer": f"{words['pieces']:,} pieces; pieces a word: {pieces}",
        "pretrained": f"held-out perplexity {before:,.0f} → {after:,.0f} in {masked['steps']} steps",
    }
    for name in ("student", "blank", "late"):
        said = done[name]["said"]
        alike = f"agrees with MiniLM to {said['agreement']:.3f}, {said['speed']:.1f} × its speed"
        told[name] = f"{said['steps']} steps; {alike}"
    for name in ("edge", "teacher-edge"):
        told[name] = f"of the ten nearest, among the first 100: {recall(done[name])}"
    return told | {"measured": "the table below"}


def page(done: dict[str, dict[str, Any]]) -> str:
    """Two tables: the stages, and the models."""
    lines = ["| stage | seconds | peak GB | what it gave |", "|---|---|---|---|"]
    told = gains(done)
    for name, facts in done.items():
        lines.append(f"| {name} | {facts['seconds']:.0f} | {facts['memory_gb']:.2f} | {told[name]} |")
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
    """Refuses a folder of other options: its stages would not fit together."""
    asked = {name: str(value) for name, value in vars(options).items() if name != "work"}
    note = work / "options.json"
    if note.exists() and read_json(note) != asked:
        raise SystemExit(f"{work} was begun with other options ({read_json(note)}): name another --work.")
    work.mkdir(parents=True, exist_ok=True)
    write_json(note, asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", help="texts or pairs; may be repeated")
    parser.add_argument("--data", type=Path, default=os.environ.get("SPECTRA_DATA"))
    parser.add_argument("--work", type=Path, default=Path("runs/edge"))
    parser.add_argument("--steps", type=int, default=400, help="of pretraining, and of each distillation")
    parser.add_argument("--rows", type=int, default=20_000, help="to learn from, all sources together")
    parser.add_argument("--limit", type=int, default=1_000, help="functions to search among")
    parser.add_argument("--quick", action="store_true", help="minutes: 4 steps, 1,000 rows, 600 functions")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.rows, options.limit = 4, 1_000, 600
    work, data = options.work.resolve(), options.data or Path("absent")
    settle(work, options)
    there = {name: str(path) for name in (*PAIRS, *PLAIN) if (path := data / name / "train.jsonl.gz").exists()}
    sources = options.source or ["python:installed", *(there[name] for name in PAIRS if name in there)]
    plain = [] if options.source else [there[name] for name in PLAIN if name in there]
    if not (work / "functions.jsonl").exists():
        # In a process of its own: a child's largest size is counted from its parent's.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
            apart.submit(write_texts, sources, plain, options.rows, options.limit, work).result()
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
