"""The quickstart's `report.html`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.workflows.quickstart.outputs import outputs_grid

if TYPE_CHECKING:
    from spectra_nsa.evaluation.run import Evaluation

_CURVES = ("step", "loss", "learning_rate", "grad_norm", "eval_dev_ndcg@10", "tokens_per_second", "health_rank")
_SPARSE_CURVES = (
    "step", "loss", "learning_rate", "grad_norm", "query_active", "document_active", "weight_query_flops",
    "weight_document_flops", "tokens_per_second",
)  # fmt: skip
_LABELS = {
    "trained_pairs": "training pairs",
    "test_pairs": "test pairs",
    "steps": "steps of SPLADE",
    "steps_inference_free": "steps of the inference-free model",
    "training_seconds": "seconds of training",
    "pairs_per_second": "pairs per second",
    "minutes": "minutes in total",
    "peak_memory_gb": "GB of memory at the peak",
}


def write_report(
    folder: Path, evaluation: Evaluation, facts: dict[str, Any], recipe: Recipe, outputs: list[dict[str, Any]]
) -> Path:
    """Writes figures, the outputs' search quality, curves, score histograms, examples and settings."""
    from dataclasses import asdict

    from spectra_nsa.core.results import environment
    from spectra_nsa.report.html import Report

    from_scratch = "A small model, trained from scratch with all-MiniLM-L6-v2 as its teacher"
    model = f"{from_scratch}," if recipe.distill.teachers else "all-MiniLM-L6-v2, trained further"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    report = Report(
        "Code search by meaning: quickstart",
        lead=f"{model} on docstrings and code of the packages installed on this machine. Measured on the standard "
        "library: the first paragraph of each docstring must find its function, whose code has no docstring.",
    )
    report.add_facts({_LABELS[key]: value for key, value in facts.items() if key in _LABELS})
    report.add_table(evaluation.results, differences=[asdict(difference) for difference in evaluation.differences])
    report.add_grid(*outputs_grid(outputs), title="Search quality of each output")
    report.add_curve([{key: row[key] for key in row if key in _CURVES} for row in rows])
    for (_, _, system), outcome in evaluation.outcomes.items():
        if outcome.distributions:
            report.add_histogram(outcome.distributions, caption=system)
    queries = {system: outcome.queries for (_, _, system), outcome in evaluation.outcomes.items() if outcome.queries}
    report.add_examples(queries)
    report.add_settings(recipe.model_dump(), title="Recipe")
    report.add_settings(environment(), title="Environment")
    return report.write(folder / "report.html")


def write_sparse_report(
    folder: Path, evaluation: Evaluation, facts: dict[str, Any], recipe: Recipe, use: list[dict[str, Any]]
) -> Path:
    """Writes figures, the use of the vocabulary, curves, examples and settings of the sparse quickstart."""
    from dataclasses import asdict

    from spectra_nsa.core.results import environment
    from spectra_nsa.report.html import Report

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    report = Report(
        "Code search by weighted terms: quickstart",
        lead="A learned sparse encoder, and one whose queries need no model, trained on docstrings and code of the "
        "packages installed on this machine. Measured on the standard library: the first paragraph of each docstring "
        "must find its function, whose code has no docstring.",
    )
    report.add_facts({_LABELS[key]: value for key, value in facts.items() if key in _LABELS})
    report.add_table(evaluation.results, differences=[asdict(difference) for difference in evaluation.differences])
    report.add_grid(*use_grid(use), title="Use of the vocabulary")
    report.add_curve([{key: row[key] for key in row if key in _SPARSE_CURVES} for row in rows])
    queries = {system: outcome.queries for (_, _, system), outcome in evaluation.outcomes.items() if outcome.queries}
    report.add_examples(queries)
    report.add_settings(recipe.model_dump(), title="Recipe")
    report.add_settings(environment(), title="Environment")
    return report.write(folder / "report.html")


def use_grid(use: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of a table of how sparse models use the vocabulary."""
    header = ["system", "terms of a query", "terms of a document", "highest document frequency", "bytes per document"]
    keys = ("query_active", "document_active", "highest_document_frequency", "bytes_per_document")
    return header, [[row["system"], *(f"{row[key]:,}" for key in keys)] for row in use]
