"""`spectra quickstart`: trains, measures and searches a model on this machine's own Python code."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import write_json
from spectra_nsa.core.memory import peak_memory_gb, release_memory
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.workflows.quickstart.budget import TimeBudget
from spectra_nsa.workflows.quickstart.data import DEV_ROWS, QuickstartData, load_pairs, training_data
from spectra_nsa.workflows.quickstart.from_scratch import pairs_within, student_recipe, train_vocabulary
from spectra_nsa.workflows.quickstart.outputs import AllOutputs, measure_outputs
from spectra_nsa.workflows.quickstart.report import write_report
from spectra_nsa.workflows.search import remember_model, top_hits

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.evaluation.pairs import PairsTask
    from spectra_nsa.evaluation.run import Evaluation
    from spectra_nsa.training.data.rows import TrainingData
    from spectra_nsa.training.run import RunResult

QUICKSTART_RECIPE = Path(__file__).parents[2] / "config" / "recipes" / "quickstart.yaml"
TASK = "standard library"
START = "all-MiniLM-L6-v2"
QUESTIONS = (
    "remove a directory and everything in it",
    "wait until a thread has finished",
    "guess the type of a file from its name",
    "split a shell command into words",
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The functions that answer a question: (qualified name, cosine, code), best first."""

    question: str
    functions: list[tuple[str, float, str]]


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """The result of a quickstart.

    Attributes:
        folder: the run's folder, with `model/`, `results.json` and `report.html`.
        evaluation: the trained model, the starting checkpoint and BM25 on the standard library.
        answers: the answers to the sample questions.
        outputs: the search quality of each output, see `measure_outputs`.
        facts: counts and times for the report.
    """

    folder: Path
    evaluation: Evaluation
    answers: list[Answer]
    outputs: list[dict[str, Any]]
    facts: dict[str, Any]


def quickstart(
    folder: str | Path | None = None, *, minutes: float = 10, from_scratch: bool = False, say: Callable[[str], None]
) -> Quickstart:
    """Trains on the docstrings and code of the installed packages and measures on the standard library's.

    Args:
        folder: the run's folder; ``None`` takes the first free one of runs/quickstart, runs/quickstart-2, ….
        minutes: about how long the whole command may take. Training gets the time that the other stages leave.
        from_scratch: whether to train a small model of its own instead: first a vocabulary, whose word vectors start
            from the checkpoint's, then the model on the pairs and on the checkpoint's vectors.
        say: called with a line of progress at each stage.

    Raises:
        SpectraError: weights or data are missing, there is too little time, or the folder already holds a run.
        KeyboardInterrupt: training was interrupted; its checkpoint is kept.
    """
    from spectra_nsa.core.seeds import set_seed
    from spectra_nsa.evaluation.pairs import PairsTask
    from spectra_nsa.evaluation.run import combine
    from spectra_nsa.training.runs.claim import claim_folder

    budget = TimeBudget(minutes)
    budget.training_seconds(None, from_scratch=from_scratch)
    out = claim_folder(Path(folder) if folder is not None else free_folder())
    start, origin = starter_checkpoint()
    say(f"weights    {origin}, SHA-256 checked")
    data = load_data(minutes, say, from_scratch=from_scratch)
    recipe = load_recipe(
        QUICKSTART_RECIPE, flags={"model.start": str(start), "name": out.name, "output": str(out.parent)}
    )
    set_seed(recipe.train.seed)
    task = PairsTask(TASK, list(data.test["anchor"]), list(data.test["positive"]))
    with _removed_if_refused(out):
        budget.training_seconds(None, from_scratch=from_scratch)
        baseline, seconds = _measure_start(start, recipe, task)
        available = budget.training_seconds(seconds, from_scratch=from_scratch)
    deadline, facts = time.monotonic() + available, dict(data.facts)
    if from_scratch:
        texts = training_data(data.pairs, groups=False).train
        tokenizer, facts["pieces"] = train_vocabulary([*texts["anchor"], *texts["positive"]], out)
        say(f"vocabulary {facts['pieces']:,} pieces of its own; each starts with the vector that {START} gives for it")
        recipe = student_recipe(recipe, tokenizer, start)
        say(f"schedule   {available:.0f} s, which begin with the teacher; batches of {recipe.train.batch}")
    else:
        say(f"schedule   {available:.0f} s, at most one pass over the pairs, in batches of {recipe.train.batch}")
    result = train_within(recipe, training_data(data.pairs, groups=not from_scratch), deadline, say)
    release_memory()
    trained = AllOutputs("quickstart", result.model, precision="auto")
    evaluation = combine([_measure(trained, task), baseline], [task])
    outputs = measure_outputs(trained, task, result.model.spectra.config.semantic_dims or [])
    answers = _answer(trained, data.test)
    facts |= {"weights": origin} | _run_facts(result, recipe, rows=len(data.pairs) - DEV_ROWS, tested=len(data.test))
    facts |= {"minutes": round(budget.spent / 60, 2), "peak_memory_gb": round(peak_memory_gb(), 2)}
    document = evaluation.document(str(result.folder / "model"), quickstart=facts, outputs=outputs)
    write_json(result.folder / "results.json", document)
    write_report(result.folder, evaluation, facts, recipe, outputs)
    remember_model(result.folder / "model")
    return Quickstart(folder=result.folder, evaluation=evaluation, answers=answers, outputs=outputs, facts=facts)


@contextlib.contextmanager
def _removed_if_refused(folder: Path) -> Iterator[None]:
    """Deletes an empty folder again if what happens inside is refused."""
    try:
        yield
    except SpectraError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def free_folder() -> Path:
    """Returns the first free one of runs/quickstart, runs/quickstart-2, …."""
    names = itertools.chain(["quickstart"], (f"quickstart-{number}" for number in itertools.count(2)))
    return next(folder for name in names if not (folder := Path("runs") / name).exists())


def load_data(minutes: float, say: Callable[[str], None], *, from_scratch: bool) -> QuickstartData:
    """Reads the pairs and says how many there are; from scratch, as many as fit into the time."""
    print("  reading the Python packages on this machine", file=sys.stderr, flush=True)
    data = load_pairs()
    if from_scratch:
        data = data._replace(pairs=data.pairs.select(range(pairs_within(minutes, len(data.pairs)))))
    say(
        f"training   {len(data.pairs):,} docstring → code pairs of {data.facts['packages']} installed packages "
        f"({data.facts['removed']} near-duplicates of test pairs removed)"
    )
    say(f"test       {len(data.test):,} pairs of the standard library, never trained on")
    return data


def _measure_start(start: Path, recipe: Recipe, task: PairsTask) -> tuple[Evaluation, float]:
    """Measures the checkpoint and BM25, and returns the seconds that this takes."""
    from spectra_nsa.models.warm_start import warm_start

    print(f"  measuring {START} and BM25 before training", file=sys.stderr, flush=True)
    begin = time.monotonic()
    model = warm_start(start, max_seq_length=recipe.model.max_length)
    baseline = _measure(DenseSystem(START, model, precision="auto"), task, bm25=True)
    del model
    release_memory()
    return baseline, time.monotonic() - begin


def _measure(dense: DenseSystem, task: PairsTask, *, bm25: bool = False) -> Evaluation:
    """Measures a dense model, and BM25 if asked to."""
    from spectra_nsa.evaluation.bm25 import BM25System
    from spectra_nsa.evaluation.run import evaluate
    from spectra_nsa.evaluation.systems import System

    systems: list[System] = [dense, *([BM25System()] if bm25 else [])]
    return evaluate(systems, [task], progress=True)


def train_within(recipe: Recipe, data: TrainingData, deadline: float, say: Callable[[str], None]) -> RunResult:
    """Trains until a deadline, a `time.monotonic()`, and says how fast.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    from spectra_nsa.training.run import train

    result = train(recipe, data=data, deadline=deadline)
    if result.interrupted:
        say(f"stopped at step {result.steps}: a quickstart cannot be resumed, start it again")
        raise KeyboardInterrupt
    say(f"trained    {counted(result.steps, 'step')} in {result.seconds:.0f} s, {result.pairs_per_second:.0f} pairs/s")
    return result


def _answer(system: AllOutputs, test: Dataset) -> list[Answer]:
    """Searches the test functions, reusing the vectors of the measurement."""
    codes, names = list(test["positive"]), list(test["name"])
    queries, documents = system.encode_queries(QUESTIONS), system.documents["embedding"]
    return [
        Answer(
            question=question,
            functions=[(names[hit.index], hit.score, hit.text) for hit in top_hits(documents @ query, codes, 3)],
        )
        for question, query in zip(QUESTIONS, queries, strict=True)
    ]


def _run_facts(result: RunResult, recipe: Recipe, *, rows: int, tested: int) -> dict[str, Any]:
    return {
        "trained_pairs": min(result.steps * recipe.train.batch, rows),
        "test_pairs": tested,
        "steps": result.steps,
        "training_seconds": round(result.seconds, 1),
        "pairs_per_second": round(result.pairs_per_second or 0.0, 1),
    }
