"""`spectra quickstart`: from nothing to a trained, measured, searchable model on this machine's own Python code."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.cache import cache_folder
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import write_json
from spectra_nsa.core.memory import peak_memory_gb, release_memory
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.workflows.quickstart.from_scratch import SHORTEST_FROM_SCRATCH, enough, own_vocabulary, student_of
from spectra_nsa.workflows.quickstart.outputs import AllOutputs, measure_outputs, outputs_grid
from spectra_nsa.workflows.search import remember_model, top_hits

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.evaluation.pairs import PairsTask
    from spectra_nsa.evaluation.run import Evaluation
    from spectra_nsa.training.run import RunResult

QUICKSTART_RECIPE = Path(__file__).parents[2] / "config" / "recipes" / "quickstart.yaml"
TASK = "standard library"
PER_PACKAGE = 2_500  # a few giants would otherwise be most of the data, and reading them takes long
DEV_ROWS = 200
RESERVE = 60  # seconds for the last checkpoint, the codes' fit, the report, and a machine that slows down
SHORTEST = 20  # seconds of training below which there is nothing to show
QUESTIONS = (
    "remove a directory and everything in it",
    "wait until a thread has finished",
    "guess the type of a file from its name",
    "split a shell command into words",
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a question found: (qualified name, cosine, code), best first."""

    question: str
    found: list[tuple[str, float, str]]


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """What a quickstart leaves.

    Attributes:
        folder: the run's folder, with `model/`, `results.json` and `report.html`.
        evaluation: the trained model, the untouched checkpoint and BM25 on the standard library.
        answers: to the sample questions.
        outputs: what each output finds, see `measure_outputs`.
        facts: counts and times, for people.
    """

    folder: Path
    evaluation: Evaluation
    answers: list[Answer]
    outputs: list[dict[str, Any]]
    facts: dict[str, Any]


@dataclass
class _Clock:
    """The time budget of the whole command."""

    minutes: float
    began: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        return self.minutes * 60 - self.spent


def quickstart(
    folder: str | Path | None = None, *, minutes: float = 10, from_scratch: bool = False, say: Callable[[str], None]
) -> Quickstart:
    """Trains on the installed packages' docstrings and code, measures on the standard library's.

    Args:
        folder: where the run is written; ``None`` for the first free of runs/quickstart, runs/quickstart-2, ….
        minutes: about how long the whole command may take; training gets what the rest leaves.
        from_scratch: trains a small model of another shape instead: a vocabulary of its own that begins with the
            checkpoint's words, then the pairs and the checkpoint's vectors.
        say: called with a line of progress at each stage.

    Raises:
        SpectraError: no weights, no data, too little time, or the folder holds a run already.
        KeyboardInterrupt: the training was interrupted; its checkpoint is kept.
    """
    from spectra_nsa.core.seeds import set_seed
    from spectra_nsa.evaluation.pairs import PairsTask
    from spectra_nsa.evaluation.run import combine
    from spectra_nsa.models.warm_start import warm_start
    from spectra_nsa.training.data.rows import TrainingData
    from spectra_nsa.training.run import train
    from spectra_nsa.training.runs.claim import claim_folder

    clock = _Clock(minutes)
    out = claim_folder(Path(folder) if folder is not None else _free_folder())
    start, origin = starter_checkpoint()
    say(f"weights    {origin}, SHA-256 checked")
    pairs, test, facts = _data()
    if from_scratch:
        pairs = pairs.select(range(enough(len(pairs), minutes)))
    say(
        f"training   {len(pairs):,} docstring → code pairs of {facts['packages']} installed packages "
        f"({facts['removed']} removed: near-duplicates of the test set)"
    )
    say(f"test       {len(test):,} pairs of the standard library, never trained on")
    recipe = load_recipe(
        QUICKSTART_RECIPE,
        flags={"model.start": str(start), "name": out.name, "output": str(out.parent)},
    )
    set_seed(recipe.train.seed)
    before = time.monotonic()
    task = PairsTask(TASK, list(test["anchor"]), list(test["positive"]))
    opened = warm_start(start, max_seq_length=recipe.model.max_length)
    untouched = DenseSystem("all-MiniLM-L6-v2", opened, precision="auto")
    baseline = _measure(untouched, task, bm25=True)
    del untouched, opened
    release_memory()
    measuring = time.monotonic() - before
    texts = pairs.select_columns(["anchor", "positive"])
    data = TrainingData(
        train=texts.select(range(DEV_ROWS, len(pairs))),
        dev=texts.select(range(DEV_ROWS)),
        dev_kind="pairs",
        quarantined=0,
        groups=list(pairs["group"])[DEV_ROWS:],
    )
    available = clock.left - measuring - RESERVE
    shortest = SHORTEST_FROM_SCRATCH if from_scratch else SHORTEST
    if available < shortest:
        with contextlib.suppress(OSError):
            out.rmdir()
        needed = math.ceil((clock.spent + measuring + RESERVE + shortest) / 60)
        raise SpectraError(
            f"{minutes:g} minutes are too few here: data and measuring take {clock.spent + measuring:.0f} s, which "
            f"leaves no time to train. Try --minutes {needed}."
        )
    now = time.monotonic()
    if from_scratch:
        read = [text for column in ("anchor", "positive") for text in data.train[column]]
        tokenizer, pieces = own_vocabulary(read, out)
        say(f"vocabulary {pieces:,} pieces of its own; each begins with the vector that all-MiniLM-L6-v2 gives for it")
        recipe, facts = student_of(recipe, tokenizer, start), facts | {"pieces": pieces}
        data = dataclasses.replace(data, groups=None)
        say(f"schedule   {available:.0f} s, of them the teacher's first, in batches of {recipe.train.batch}")
    else:
        say(f"schedule   {available:.0f} s, at most one pass over the pairs in batches of {recipe.train.batch}")
    result = train(recipe, data=data, deadline=now + available)
    if result.interrupted:
        say(f"stopped at step {result.steps}: a quickstart is not resumed, run it again")
        raise KeyboardInterrupt
    say(f"trained    {result.steps} steps in {result.seconds:.0f} s, {result.pairs_per_second:.0f} pairs/s")
    release_memory()
    trained = AllOutputs("quickstart", result.model, precision="auto")
    evaluation = combine([_measure(trained, task), baseline], [task])
    outputs = measure_outputs(trained, task, result.model.spectra.config.semantic_dims or [])
    answers = _answer(trained, test)
    facts |= _facts(clock, result, recipe, origin, rows=len(data.train), tested=len(test))
    document = evaluation.document(str(result.folder / "model"), quickstart=facts, outputs=outputs)
    write_json(result.folder / "results.json", document)
    write_report(result.folder, evaluation, facts, recipe, outputs)
    remember_model(result.folder / "model")
    return Quickstart(folder=result.folder, evaluation=evaluation, answers=answers, outputs=outputs, facts=facts)


def _free_folder() -> Path:
    names = itertools.chain(["quickstart"], (f"quickstart-{number}" for number in itertools.count(2)))
    return next(folder for name in names if not (folder := Path("runs") / name).exists())


def _data() -> tuple[Dataset, Dataset, dict[str, Any]]:
    """Training pairs without near-duplicates of the test set, shuffled; the test pairs; counts."""
    from spectra_nsa.text.duplicates import near_duplicates
    from spectra_nsa.text.readers.python_env import environment_pairs

    cache = cache_folder("python-env")
    test = environment_pairs("stdlib", cache_dir=cache).dataset
    twice = near_duplicates(list(test["anchor"]), None) | near_duplicates(list(test["positive"]), None)
    test = test.select(np.flatnonzero(~twice))  # each question has one right answer
    pairs = environment_pairs("installed", per_package=PER_PACKAGE, cache_dir=cache).dataset
    seen = near_duplicates(list(pairs["anchor"]), list(test["anchor"]))
    seen |= near_duplicates(list(pairs["positive"]), list(test["positive"]))
    kept = pairs.select(np.flatnonzero(~seen)).shuffle(seed=0)
    facts = {"packages": len(set(kept["group"])), "removed": int(seen.sum()), "pairs": len(kept)}
    return kept.select_columns(["anchor", "positive", "group"]), test, facts


def _measure(dense: DenseSystem, task: PairsTask, *, bm25: bool = False) -> Evaluation:
    """A dense model, and BM25 beside it if asked."""
    from spectra_nsa.evaluation.bm25 import BM25System
    from spectra_nsa.evaluation.run import evaluate
    from spectra_nsa.evaluation.systems import System

    systems: list[System] = [dense, *([BM25System()] if bm25 else [])]
    return evaluate(systems, [task], progress=False)


def _answer(system: AllOutputs, test: Dataset) -> list[Answer]:
    """Searches the test functions, whose vectors the measurement has left."""
    codes, names = list(test["positive"]), list(test["name"])
    vectors, found = system.encode_queries(QUESTIONS), system.documents["embedding"]
    return [
        Answer(
            question=question,
            found=[(names[hit.index], hit.score, hit.text) for hit in top_hits(found @ vector, codes, 3)],
        )
        for question, vector in zip(QUESTIONS, vectors, strict=True)
    ]


def _facts(clock: _Clock, result: RunResult, recipe: Recipe, origin: str, *, rows: int, tested: int) -> dict[str, Any]:
    return {
        "weights": origin,
        "trained_pairs": min(result.steps * recipe.train.batch, rows),
        "test_pairs": tested,
        "steps": result.steps,
        "training_seconds": round(result.seconds, 1),
        "pairs_per_second": round(result.pairs_per_second or 0.0, 1),
        "minutes": round(clock.spent / 60, 2),
        "peak_memory_gb": round(peak_memory_gb(), 2),
    }


def write_report(
    folder: Path, evaluation: Evaluation, facts: dict[str, Any], recipe: Recipe, outputs: list[dict[str, Any]]
) -> Path:
    """Writes `report.html`: figures, what each output finds, curves, score histograms, examples, settings."""
    from dataclasses import asdict

    from spectra_nsa.core.results import environment
    from spectra_nsa.report.html import Report

    scratch = "A small model from scratch, taught by all-MiniLM-L6-v2"
    what = scratch if recipe.distill.teachers else "all-MiniLM-L6-v2"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    watched = [{key: row[key] for key in row if key in _CURVES} for row in rows]
    report = Report(
        "Code search by meaning: quickstart",
        lead=f"{what}, trained on docstrings and code of the packages installed on this machine, measured on "
        "the standard library: each docstring's first paragraph must find its function, from which the docstring was "
        "removed.",
    )
    report.add_facts({_LABELS[key]: value for key, value in facts.items() if key in _LABELS})
    report.add_table(evaluation.results, differences=[asdict(one) for one in evaluation.differences])
    report.add_grid(*outputs_grid(outputs), title="What one forward pass gives")
    report.add_curve(watched)
    for (_, _, system), outcome in evaluation.outcomes.items():
        if outcome.distributions:
            report.add_histogram(outcome.distributions, caption=system)
    queries = {system: outcome.queries for (_, _, system), outcome in evaluation.outcomes.items() if outcome.queries}
    report.add_examples(queries)
    report.add_settings(recipe.model_dump(), title="Recipe")
    report.add_settings(environment(), title="Environment")
    return report.write(folder / "report.html")


_CURVES = ("step", "loss", "learning_rate", "grad_norm", "eval_dev_ndcg@10", "tokens_per_second", "health_rank")
_LABELS = {
    "trained_pairs": "pairs trained on",
    "test_pairs": "test pairs",
    "training_seconds": "seconds of training",
    "pairs_per_second": "pairs a second",
    "minutes": "minutes in all",
    "peak_memory_gb": "GB of memory at the peak",
}
