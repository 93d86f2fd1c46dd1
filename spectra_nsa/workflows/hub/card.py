"""The model card: metadata that the Hub reads, and what a reader has to know before she uses the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectra_nsa.heads.kinds import OUTPUTS, outputs_of
from spectra_nsa.workflows.hub.facts import ModelFacts

_TASKS = {False: "sentence-similarity", True: "feature-extraction"}
_NOT_STATED = "not stated"


def build_card(facts: ModelFacts, repo: str, *, licence: str | None = None, language: str | None = None) -> str:
    """Returns the text of a card, with its metadata.

    Args:
        facts: of the model.
        repo: ``"owner/name"``.
        licence: an identifier of the Hub, such as ``"apache-2.0"``; ``None`` states none.
        language: ``"en"``, …; ``None`` states none.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag=_TASKS[facts.sparse],
        tags=["sentence-transformers", "spectra-nsa", "sparse-encoder" if facts.sparse else "feature-extraction"],
        license=licence,
        language=language,
        base_model=_hub_name(facts.base),
        model_name=repo.rpartition("/")[2],
        eval_results=_results(facts) or None,
    )
    parts = [
        _summary(facts, repo), _use(facts, repo), _outputs(facts), _training(facts), _figures(facts), _exports(facts),
        _limits(facts, licence), _citation(repo),
    ]  # fmt: skip
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _summary(facts: ModelFacts, repo: str) -> str:
    name = repo.rpartition("/")[2]
    if facts.sparse:
        what = "A sparse encoder: a text becomes the weights of terms of its vocabulary."
    else:
        dims = f" of {facts.spec.projection_dim} dimensions, and more from the same pass" if facts.spec else ""
        what = f"An embedding model: a text becomes a vector{dims}."
    return f"# {name}\n\n{what} Made with [Spectra-NSA](https://pypi.org/project/spectra-nsa)."


_SENTENCE = "output `sentence_embedding`, among others"
_METHODS = """queries = model.encode_query(["how do I open a file"])
documents = model.encode_document(["open(path) returns a file"])"""


def _use(facts: ModelFacts, repo: str) -> str:
    kind = "SparseEncoder" if facts.sparse else "SentenceTransformer"
    needs = "" if facts.sparse else "import spectra_nsa.hf  # registers the architecture\n"
    ours = f'import spectra_nsa as sp\n\nmodel = sp.load("{repo}")\n{_METHODS}'
    theirs = f'{needs}from sentence_transformers import {kind}\n\nmodel = {kind}("{repo}")\n{_METHODS}'
    parts = ["## Use", "With Spectra-NSA:", _python(ours), "With sentence-transformers:", _python(theirs)]
    onnx = next((name for name in facts.exports if name.startswith("onnx")), None)
    if onnx is not None:
        name = "SparseRuntime" if facts.sparse else "Runtime"
        outputs = "outputs `sparse`, `sparse_ids` and `sparse_values`" if facts.sparse else _SENTENCE
        runtime = f'model = {name}("FOLDER", format="{onnx}")  # the downloaded repository'
        parts += [
            'Without torch, from the exported graph (`pip install "spectra-nsa[runtime]"`):',
            _python(f"from spectra_nsa.runtime import {name}\n\n{runtime}\n{_METHODS}"),
            f"Any program that runs ONNX can use the graph: inputs `input_ids` and `attention_mask`, {outputs}.",
        ]
    return "\n\n".join(parts)


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


def _outputs(facts: ModelFacts) -> str:
    if facts.spec is None:
        return ""
    names = [name for name in outputs_of(facts.spec) if name in OUTPUTS]
    dims = facts.spec.semantic_dims or []
    text = "## Outputs\n\n" + ", ".join(f"`{name}`" for name in names) + "."
    if len(dims) > 1:
        text += f" `embedding` and `semantic` can be cut to {', '.join(map(str, sorted(dims)))} dimensions."
    return text


def _training(facts: ModelFacts) -> str:
    if facts.recipe is None:
        return "## Training\n\nThe folder does not say how this model was trained."
    rows = [
        [data.name, data.licence or _NOT_STATED, f"`{data.sha256[:16]}…`" if data.sha256 else "–"]
        for data in facts.data
    ]
    run, environment = facts.run, facts.run.get("environment", {})
    hours = run.get("hours")
    took = "" if hours is None else f", {60 * hours:.0f} minutes" if hours < 2 else f", {hours:.1f} hours"
    machine = f"{environment.get('cpus', '?')} CPUs" + (f", {environment['gpu']}" if environment.get("gpu") else "")
    versions = ", ".join(f"{name} {environment[name]}" for name in ("spectra-nsa", "torch") if name in environment)
    return (
        f"## Training\n\nFrom: {facts.base}. {run['steps']:,} steps in {run['precision']} on {machine}{took} "
        f"({versions}).\n\n{_table(['data', 'licence', 'SHA-256'], rows)}\n\n<details><summary>Recipe</summary>\n\n"
        f"```yaml\n{facts.recipe.strip()}\n```\n\n</details>"
    )


def _figures(facts: ModelFacts) -> str:
    parts = []
    if facts.results:
        rows = [[r["name"], r["metric"], f"{r['value']:.4f}", _interval(r), str(r.get("n", ""))] for r in facts.results]
        parts.append(_table(["task", "metric", "value", "95 %", "queries"], rows))
    if dev := facts.run.get("dev"):
        figures = ", ".join(f"{name.removeprefix('dev_')} {value:.4f}" for name, value in dev.items())
        parts.append(f"On held-out rows of the training data, which also chose the checkpoint: {figures}.")
    return "## Results\n\n" + "\n\n".join(parts) if parts else "## Results\n\nNone were given."


def _exports(facts: ModelFacts) -> str:
    if not facts.exports:
        return ""
    rows = []
    for name, entry in facts.exports.items():
        checks = entry.get("checks", {}).get("outputs", {})
        cosine = next((checks[name].get("cosine_min") for name in ("embedding", "sparse") if name in checks), None)
        rows.append(
            [name, f"`{entry['file']}`", f"{entry['bytes'] / 1e6:.1f} MB", "–" if cosine is None else f"{cosine:.5f}"]
        )
    return "## Exports\n\n" + _table(["format", "file", "size", "cosine to the model, at worst"], rows)


def _limits(facts: ModelFacts, licence: str | None) -> str:
    notes = []
    if facts.max_length:
        notes.append(f"Texts are cut after {facts.max_length:,} tokens.")
    if facts.spec is not None:
        if facts.spec.anomaly_method == "none":
            notes.append("The anomaly score was not fitted: `is_ood` says nothing.")
        if not facts.spec.codes_fitted:
            notes.append("The binary codes were not fitted to a corpus.")
    unknown = [data.name for data in facts.data if data.licence is None]
    if unknown:
        notes.append(f"The licence of the training data is not stated: {', '.join(unknown)}.")
    if licence is None:
        notes.append("No licence is stated for the weights, so they may not be reused without asking.")
    notes.append("Made for search and similarity of texts like those it was trained on; measure it on yours first.")
    return "## Intended use and limits\n\n" + "\n".join(f"- {note}" for note in notes)


def _citation(repo: str) -> str:
    key = "".join(letter for letter in repo.rpartition("/")[2] if letter.isalnum())
    return (
        "## Citation\n\n```bibtex\n"
        f"@misc{{{key},\n  title = {{{repo}}},\n  howpublished = {{\\url{{https://huggingface.co/{repo}}}}}\n}}\n```"
    )


def _results(facts: ModelFacts) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="information-retrieval",
            dataset_type=str(r["name"]),
            dataset_name=str(r["name"]),
            metric_type=str(r["metric"]),
            metric_value=float(r["value"]),
        )
        for r in facts.results
    ]


def _hub_name(base: str | None) -> str | None:
    """Returns the Hub name in a link to it; ``None`` for anything else."""
    return base[1:].partition("]")[0] if base and base.startswith("[") else None


def _interval(result: Mapping[str, Any]) -> str:
    interval = result.get("ci")
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "–"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
