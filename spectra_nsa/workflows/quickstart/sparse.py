"""`spectra quickstart --sparse`: trains, measures and searches sparse encoders on this machine's own Python code."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_nsa.config.recipe import Recipe, load_recipe, with_values
from spectra_nsa.core.files import write_json
from spectra_nsa.core.memory import peak_memory_gb, release_memory
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.hybrid import HybridSystem
from spectra_nsa.evaluation.sparse.system import SparseSystem
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.workflows.quickstart.budget import TimeBudget
from spectra_nsa.workflows.quickstart.data import training_data
from spectra_nsa.workflows.quickstart.report import write_sparse_report
from spectra_nsa.workflows.quickstart.run import QUESTIONS, START, TASK, free_folder, load_data, train_within

if TYPE_CHECKING:
    from datasets import Dataset
    from scipy.sparse import csr_matrix

    from spectra_nsa.evaluation.run import Evaluation
    from spectra_nsa.training.data.rows import TrainingData
    from spectra_nsa.training.run import RunResult

SPARSE_RECIPE = Path(__file__).parents[2] / "config" / "recipes" / "quickstart-sparse.yaml"
SPLADE, FREE, HYBRID = "sparse", "inference-free", "hybrid"
_SPLADE_SHARE = 0.7  # of the training time; the inference-free model continues from the first
_PRICE = 3.0  # of measuring a sparse model, by that of the dense one and BM25: each token passes the vocabulary head
_LEAST = 7.0  # seconds of training, by the same measure: about 40 steps and 20 more, and the start and end of both runs
_POSTING_BYTES = 6  # document number and weight of one term in an index


@dataclass(frozen=True, kw_only=True)
class SparseAnswer:
    """The functions that answer a question: (qualified name, score, code, shared terms with their part of it)."""

    question: str
    functions: list[tuple[str, float, str, list[tuple[str, float]]]]


@dataclass(frozen=True, kw_only=True)
class SparseQuickstart:
    """The result of `spectra quickstart --sparse`.

    Attributes:
        folder: the run's folder, with `model/`, `inference-free/model/`, `results.json` and `report.html`.
        evaluation: BM25, the dense start, both sparse models and the hybrid on the standard library.
        answers: the sparse model's answers to the sample questions.
        use: for each sparse model its `system`, the mean number of active terms of queries and documents, the highest
            document frequency and the bytes of postings per document.
        facts: counts and times for the report.
    """

    folder: Path
    evaluation: Evaluation
    answers: list[SparseAnswer]
    use: list[dict[str, Any]]
    facts: dict[str, Any]


def sparse_quickstart(
    folder: str | Path | None = None, *, minutes: float = 10, say: Callable[[str], None]
) -> SparseQuickstart:
    """Trains a SPLADE model and an inference-free one on the installed packages, and measures on the standard library.

    Args:
        folder: the run's folder; ``None`` takes the first free one of runs/quickstart, runs/quickstart-2, ….
        minutes: about how long the whole command may take. Training gets the time that the other stages leave, and
            enough for some sixty steps on a slow machine, where the command then takes longer.
        say: called with a line of progress at each stage.

    Raises:
        SpectraError: weights or data are missing, there is too little time, or the folder already holds a run.
        KeyboardInterrupt: training was interrupted; its checkpoint is kept.
    """
    from spectra_nsa.core.seeds import set_seed
    from spectra_nsa.evaluation.pairs import PairsTask
    from spectra_nsa.evaluation.run import combine, evaluate
    from spectra_nsa.models.warm_start import warm_start
    from spectra_nsa.training.runs.claim import claim_folder

    budget = TimeBudget(minutes)
    budget.training_seconds(None, from_scratch=False)
    out = claim_folder(Path(folder) if folder is not None else free_folder())
    start, origin = starter_checkpoint()
    say(f"weights    {origin}, SHA-256 checked")
    data = load_data(minutes, say, from_scratch=False)
    recipe = load_recipe(SPARSE_RECIPE, flags={"model.start": str(start), "name": out.name, "output": str(out.parent)})
    set_seed(recipe.train.seed)
    task = PairsTask(TASK, list(data.test["anchor"]), list(data.test["positive"]))
    rows = training_data(data.pairs, groups=True)
    assert rows.dev is not None
    begin = time.monotonic()
    dense = DenseSystem(START, warm_start(start, max_seq_length=recipe.model.max_length), precision="auto")
    baseline = evaluate([dense, BM25System()], [task], progress=True)
    speed = time.monotonic() - begin
    available = budget.training_seconds(2 * _PRICE * speed, from_scratch=False, least=_LEAST * speed)
    planned = budget.total_minutes(2 * _PRICE * speed, available)
    say(f"schedule   {available:.0f} s of training in batches of {recipe.train.batch}: SPLADE, then inference-free")
    if planned > minutes + 1:
        say(f"           this machine needs about {planned:.0f} minutes, not {minutes:g}: less training shows nothing")
    results, systems = _train(recipe, rows, available, out, say)
    hybrid = _hybrid(dense, systems[0], rows.dev)
    evaluation = combine([evaluate([*systems, hybrid], [task], progress=True), baseline], [task])
    facts = dict(data.facts) | {"weights": origin} | _facts(results, recipe, len(data.test))
    facts |= {"planned_minutes": round(planned, 1), "minutes": round(budget.spent / 60, 2)}
    facts |= {"peak_memory_gb": round(peak_memory_gb(), 2), "fusion": hybrid.fusion.document()}
    use = [_use(system, data.test) for system in systems]
    write_json(out / "results.json", evaluation.document(str(out / "model"), quickstart=facts, sparsity=use))
    write_sparse_report(out, evaluation, facts, recipe, use)
    answers = _answer(systems[0], data.test)
    return SparseQuickstart(folder=out, evaluation=evaluation, answers=answers, use=use, facts=facts)


def _train(
    recipe: Recipe, rows: TrainingData, seconds: float, out: Path, say: Callable[[str], None]
) -> tuple[list[RunResult], list[SparseSystem]]:
    """Trains SPLADE, then an inference-free model that starts from it."""
    splade = train_within(recipe, rows, time.monotonic() + _SPLADE_SHARE * seconds, say)
    release_memory()
    second = with_values(
        recipe,
        {
            "name": FREE,
            "output": str(out),
            "model.start": str(splade.folder / "model"),
            "sparse.kind": "inference_free",
        },
    )
    free = train_within(second, rows, time.monotonic() + (1 - _SPLADE_SHARE) * seconds, say)
    release_memory()
    named = ((SPLADE, splade), (FREE, free))
    return [splade, free], [SparseSystem(name, result.model, precision="auto") for name, result in named]


def _hybrid(dense: DenseSystem, sparse: SparseSystem, dev: Dataset) -> HybridSystem:
    """Returns the fusion of two systems, fitted on held-out pairs. The systems keep the vectors of the test pairs."""
    parts = DenseSystem(START, dense.model, precision="auto"), SparseSystem(SPLADE, sparse.model, precision="auto")
    fitted = HybridSystem(parts)
    fitted.fit(dev["anchor"][:], dev["positive"][:], [{at: 1.0} for at in range(len(dev))])
    hybrid = HybridSystem([dense, sparse], fitted.fusion)
    hybrid.name = HYBRID
    return hybrid


def _use(system: SparseSystem, test: Dataset) -> dict[str, Any]:
    """Returns how much of the vocabulary a system uses on the test pairs, which it has just encoded."""
    queries, documents = system.sparse_rows(test["anchor"][:], test["positive"][:])
    frequency = np.bincount(documents.indices, minlength=documents.shape[1]) / documents.shape[0]
    active = documents.nnz / documents.shape[0]
    return {
        "system": system.name,
        "query_active": round(queries.nnz / queries.shape[0], 1),
        "document_active": round(active, 1),
        "highest_document_frequency": round(float(frequency.max()), 3),
        "terms_in_most_documents": int((frequency > 0.5).sum()),
        "bytes_per_document": round(_POSTING_BYTES * active),
    }


def _answer(system: SparseSystem, test: Dataset) -> list[SparseAnswer]:
    """Searches the test functions, and names the terms that each shares with the question."""
    codes, names = test["positive"][:], test["name"][:]
    _, documents = system.sparse_rows(test["anchor"][:], codes)
    queries = system.encode_queries(QUESTIONS)
    answers = []
    for at, question in enumerate(QUESTIONS):
        scores = (queries[at] @ documents.T).toarray()[0]
        best = np.argsort(-scores, kind="stable")[:3]
        functions = [
            (names[hit], float(scores[hit]), codes[hit], _shared(system, queries[at], documents[hit])) for hit in best
        ]
        answers.append(SparseAnswer(question=question, functions=functions))
    return answers


def _shared(system: SparseSystem, query: csr_matrix, document: csr_matrix, most: int = 4) -> list[tuple[str, float]]:
    """Returns the terms that contribute most to a score, with their part of it."""
    products = query.multiply(document).tocsr()
    order = np.argsort(-products.data)[:most]
    tokens = system.term_names(products.indices[order].tolist()) or []
    return [(token, round(float(products.data[at]), 2)) for token, at in zip(tokens, order, strict=True)]


def _facts(results: Sequence[RunResult], recipe: Recipe, tested: int) -> dict[str, Any]:
    splade, free = results
    return {
        "trained_pairs": splade.steps * recipe.train.batch,
        "test_pairs": tested,
        "steps": splade.steps,
        "steps_inference_free": free.steps,
        "training_seconds": round(splade.seconds + free.seconds, 1),
        "pairs_per_second": round(splade.pairs_per_second or 0.0, 1),
    }
