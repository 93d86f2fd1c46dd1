"""What the experts of a model specialize in, and what they are worth: `spectra moe analyze`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.results import environment
from spectra_nsa.heads.kinds import GATE_OUTPUTS, outputs_of
from spectra_nsa.heads.spec import ModelSpec
from spectra_nsa.metrics import routing as measure
from spectra_nsa.models.open import find_model, open_model
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.text.shared_columns import SharedColumns
from spectra_nsa.training.runs.checkpoints import checkpoints_of, step_of
from spectra_nsa.workflows.moe.collect import Routes, collect_routes, expert_layers, expert_outputs
from spectra_nsa.workflows.moe.interventions import Quality, ablate_experts, say_searches, scramble, subsets
from spectra_nsa.workflows.moe.layers import distances, layer_facts, rounded, top_tokens
from spectra_nsa.workflows.moe.texts import Domain, TextTable, read_domains, text_table

_PATHS = 20  # the most frequent ways through the layers
_EXAMPLES = 2  # texts of each domain whose tokens are shown
_EXAMPLE_TOKENS = 60
_SMEAR = "each text uses all experts, mixed: where this says choice, it means the expert with the largest share"
_TEXTS_OF_CHECKPOINTS = 50  # of each domain


def analyze(
    model: str,
    texts: Sequence[str],
    *,
    limit: int = 200,
    pairs: int = 100,
    rounds: int = 20,
    seed: int = 0,
    columns: Mapping[str, str] | SharedColumns | None = None,
) -> dict[str, Any]:
    """Measures the experts of a saved model on texts of several domains.

    Args:
        model: the folder or Hub name of a saved model with experts. The checkpoints beside it, if it is a run's,
            give the saturation of the routers.
        texts: ``NAME=SOURCE`` of each domain. Pairs are also searched, to measure what experts are worth.
        limit: the largest number of texts or pairs of a domain, drawn from the first 50 times as many rows.
        pairs: the largest number of pairs of a domain that are searched; 0 leaves the searches out.
        rounds: permutations behind each null.
        seed: of what is drawn.
        columns: role → column; ``None`` guesses the roles.

    Returns:
        the document that ``--json`` prints (docs/guides/experts.md).

    Raises:
        UsageError: `texts` are not ``NAME=SOURCE``.
        SpectraError: there is no such model, it has no experts, or a source has no texts.
    """
    domains, notes = read_domains(texts, limit=limit, seed=seed, columns=columns)
    files = find_model(model, accept=("spectra",))
    opened = open_model(files)
    config = opened.spectra.config
    if config.ffn != "moe":
        raise _without_experts(model, config)
    table, names = text_table(domains), [domain.name for domain in domains]
    if len(domains) < 2:
        notes.append("one domain: what experts know of domains needs a second --texts NAME=SOURCE")
    spec, numbers = config.encoder_spec().experts, config.encoder_spec().expert_layers
    routes = collect_routes(opened, table)
    words = _words(opened, routes)
    facts = _layers(opened, routes, table, names, words, rounds)
    notes += [_SMEAR] if spec.router == "smear" else _dead_notes(facts)
    sizes = {domain.name: {"texts": len(domain.documents), "pairs": len(domain.queries)} for domain in domains}
    return {
        "schema": 1,
        "model": model,
        "experts": {"layers": numbers, **spec.to_config()},
        "domains": sizes,
        "choices": len(routes.text_N),
        "layers": facts,
        "transitions": _transitions(routes, spec.count),
        "paths": _paths(routes),
        "gates": _gates(opened, table, names),
        "saturation": _saturation(opened, files.folder, domains, notes),
        "quality": _quality(opened, domains, routes, table, names, pairs=pairs, seed=seed, notes=notes),
        "examples": _examples(routes, table, names, words),
        "notes": notes,
        "environment": environment(),
    }


def _without_experts(model: str, spec: ModelSpec) -> SpectraError:
    """Returns the error for a model without experts, which may have other choices."""
    gates = [name for name in GATE_OUTPUTS if name in outputs_of(spec)]
    remedy = "train one with model.ffn=moe."
    if gates:
        remedy = f"what its texts choose is an output, as in spectra encode MODEL --outputs {','.join(gates)}."
    return SpectraError(f"{model} has no experts to analyze: {remedy}")


def _layers(
    model: SpectraSentenceTransformer,
    routes: Routes,
    table: TextTable,
    names: Sequence[str],
    words: Mapping[int, str],
    rounds: int,
) -> list[dict[str, Any]]:
    """Returns the figures of each layer."""
    outputs, facts = expert_outputs(model, table), []
    numbers, special = model.spectra.config.encoder_spec().expert_layers, model.tokenizer.all_special_ids
    for at, layer in enumerate(expert_layers(model)):
        spec = layer.spec
        of_layer = layer_facts(routes, at, table, names, experts=spec.count, special=special, rounds=rounds)
        weights = [weight.detach().cpu().numpy() for weight in layer.experts()]
        of_layer["distance"] = distances(weights, outputs[at], spec.groups)
        if routes.ids_N is not None:
            of_layer["tokens"] = top_tokens(routes, at, words, spec.count)
        facts.append({"layer": numbers[at]} | of_layer)
    return facts


def _dead_notes(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns notes on experts that are never chosen, and on those that get next to nothing of many choices."""

    def named(experts: Mapping[int, Sequence[int]]) -> str:
        return "; ".join(f"layer {layer}: {', '.join(map(str, of))}" for layer, of in experts.items() if of)

    never = named({layer["layer"]: layer["unused"] for layer in facts})
    dead = named({layer["layer"]: [e for e in layer["dead"] if e not in layer["unused"]] for layer in facts})
    notes = [f"experts that these texts never choose: {never}"] if never else []
    return [*notes, *([f"experts with less than a tenth of an equal share: {dead}"] if dead else [])]


def _words(model: SpectraSentenceTransformer, routes: Routes) -> dict[int, str]:
    """Returns the token of each id that occurs."""
    if routes.ids_N is None:
        return {}
    ids = [int(number) for number in np.unique(routes.ids_N)]
    return dict(zip(ids, model.tokenizer.convert_ids_to_tokens(ids), strict=True))


def _transitions(routes: Routes, experts: int) -> list[Any]:
    """Returns P(expert above | expert below) for each two successive layers with experts."""
    firsts = [chosen_NK[:, 0] for chosen_NK in routes.chosen]
    return [rounded(measure.transitions(below, above, experts)) for below, above in pairwise(firsts)]


def _paths(routes: Routes) -> list[dict[str, Any]]:
    """Returns the most frequent sequences of first experts through the layers."""
    paths_NL = np.stack([chosen_NK[:, 0] for chosen_NK in routes.chosen], axis=1)
    counts = Counter(map(tuple, paths_NL.tolist()))
    return [{"experts": list(path), "share": round(n / len(paths_NL), 5)} for path, n in counts.most_common(_PATHS)]


def _gates(model: SpectraSentenceTransformer, table: TextTable, names: Sequence[str]) -> dict[str, Any]:
    """Returns the mean gates over depths, poolings and adapters by domain, 1 for each candidate if undecided."""
    wanted = [name for name in GATE_OUTPUTS if name in outputs_of(model.spectra.config)]
    if not wanted:
        return {}
    values = model.encode(table.texts, outputs=wanted, precision="fp32")
    return {
        gate: {name: rounded(values[gate][table.domain_T == at].mean(0)) for at, name in enumerate(names)}
        for gate in wanted
    }


def _saturation(
    model: SpectraSentenceTransformer, folder: Path, domains: Sequence[Domain], notes: list[str]
) -> list[dict[str, Any]]:
    """Returns by checkpoint of the model's run and layer the share of choices that the model makes too."""
    found = []
    checkpoints = checkpoints_of(folder.resolve().parent)
    if not checkpoints:
        return []
    few = text_table(
        [
            Domain(
                name=domain.name,
                queries=domain.queries[:_TEXTS_OF_CHECKPOINTS],
                documents=domain.documents[:_TEXTS_OF_CHECKPOINTS],
            )
            for domain in domains
        ]
    )
    last = collect_routes(model, few)
    for checkpoint in checkpoints:
        try:
            opened = open_model(find_model(str(checkpoint), accept=("spectra",)))
        except SpectraError as error:
            notes.append(f"{checkpoint.name} is left out of the saturation: {error}")
            continue
        then = collect_routes(opened, few, label=f"routing at step {step_of(checkpoint)}")
        shares = [measure.saturation(a, b) for a, b in zip(then.chosen, last.chosen, strict=True)]
        found.append({"step": step_of(checkpoint), "layers": [round(share, 4) for share in shares]})
    return found


def _quality(
    model: SpectraSentenceTransformer,
    domains: Sequence[Domain],
    routes: Routes,
    table: TextTable,
    names: Sequence[str],
    *,
    pairs: int,
    seed: int,
    notes: list[str],
) -> dict[str, Any]:
    """Returns what experts are worth in retrieval; empty without pairs."""
    quality = Quality(model, domains, pairs)
    if not pairs or not quality.domains:
        if pairs:
            notes.append("no pairs: what experts are worth is not measured")
        return {}
    begin = time.monotonic()
    before = quality.measure()
    say_searches(quality, time.monotonic() - begin)
    return {
        "ndcg@10": {name: round(float(values.mean()), 4) for name, values in before.items()},
        "queries": {name: len(values) for name, values in before.items()},
        "scramble": scramble(quality, before, seed),
        "subsets": subsets(quality, routes, table, names),
        "ablation": [
            cell | {"layer": model.spectra.config.encoder_spec().expert_layers[cell["layer"]]}
            for cell in ablate_experts(quality, before)
        ],
    }


def _examples(routes: Routes, table: TextTable, names: Sequence[str], words: Mapping[int, str]) -> list[dict[str, Any]]:
    """Returns the first tokens of some texts of each domain with their first experts by layer."""
    if routes.ids_N is None:
        return []
    found = []
    for number, name in enumerate(names):
        texts = np.flatnonzero(table.domain_T == number)
        for text in (*texts[:1], *texts[-1:])[:_EXAMPLES]:
            at = np.flatnonzero(routes.text_N == text)[:_EXAMPLE_TOKENS]
            tokens = [words[int(number)] for number in routes.ids_N[at]]
            experts = [chosen_NK[at, 0].tolist() for chosen_NK in routes.chosen]
            found.append({"domain": name, "tokens": tokens, "experts": experts})
    return found
