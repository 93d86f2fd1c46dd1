"""The findings of an analysis of experts in words, and its figures by layer as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]
HEADER = ("layer", "MaxVio", "entropy", "domain", "token", "beyond", "pairs", "weights", "outputs")
KEY = (
    "MaxVio: largest load over the mean, less 1. entropy: of the gate, 1 if undecided. domain, token: what a choice "
    "tells of the domain, and the token of a choice, as a share of all there is to know, less what shuffled choices "
    "tell. beyond: the same of the domain once the token is known. pairs: how much more a query and its document share "
    "experts than random pairs. weights, outputs: mean distance of two experts."
)
_LITTLE, _MUCH = 0.02, 0.3
_SAME = 0.05  # distance of weights below which experts are still nearly copies


def layer_rows(document: Facts) -> list[tuple[str, ...]]:
    """Returns a row of `HEADER` for each layer."""
    rows: list[tuple[str, ...]] = []
    for layer in document["layers"]:
        pairs = layer.get("pair_agreement")
        cells = (
            f"{layer['max_violation']:.2f}",
            f"{layer['gate_entropy']:.2f}",
            _excess(layer, "domain_information"),
            _excess(layer, "token_information"),
            _excess(layer, "domain_beyond_token"),
            f"{pairs['value'] - pairs['random_pairs']:+.2f}" if pairs else "–",
            f"{layer['distance']['weights']:.3f}",
            f"{layer['distance']['outputs']:.3f}",
        )
        rows.append((str(layer["layer"]), *cells))
    return rows


def findings(document: Facts) -> list[str]:
    """Returns what the figures say, in sentences."""
    layers: Sequence[Facts] = document["layers"]
    found = []
    apart = max(layer["distance"]["weights"] for layer in layers)
    if apart < _SAME:
        found.append(
            f"The experts are still nearly copies of each other (weights at most {apart:.1%} apart): too early to "
            "measure what they are worth. Longer training parts them; so does a larger train.expert_lr_factor, at a "
            "price in quality where it was tried."
        )
    found += [line for line in (_follows(layers), _domains(layers), _pairs(layers)) if line]
    return found + _worth(document.get("quality") or {})


def _excess(layer: Facts, name: str) -> str:
    return f"{layer[name]['excess']:.2f}" if name in layer else "–"


def _mean(layers: Sequence[Facts], name: str) -> float | None:
    values = [layer[name]["excess"] for layer in layers if name in layer]
    return sum(values) / len(values) if values else None


def _follows(layers: Sequence[Facts]) -> str:
    token = _mean(layers, "token_information")
    if token is None:
        return ""
    strength = "mostly follow" if token > 0.6 else "partly follow" if token > _MUCH else "hardly follow"
    return f"Choices {strength} the identity of the token: it explains {token:.0%} of them beyond chance."


def _domains(layers: Sequence[Facts]) -> str:
    beyond, whole = _mean(layers, "domain_beyond_token"), _mean(layers, "domain_information")
    if whole is None:
        return ""
    if whole < _LITTLE:
        line = "A choice tells next to nothing of the domain beyond chance"
    else:
        line = f"A choice tells {whole:.0%} of the domain beyond chance on average"
    best = max(layers, key=lambda layer: layer["domain_information"]["excess"])
    most = best["domain_information"]["excess"]
    if most - whole > _LITTLE:
        line += f", most in layer {best['layer']} ({most:.0%})"
    if beyond is None:
        return line + "."
    rest = "next to nothing" if beyond < _LITTLE else f"{beyond:.0%}"
    return f"{line}. Of what the token leaves open about the domain, it tells {rest}."


def _pairs(layers: Sequence[Facts]) -> str:
    gaps = [
        (layer["pair_agreement"]["value"], layer["pair_agreement"]["random_pairs"])
        for layer in layers
        if "pair_agreement" in layer
    ]
    if not gaps:
        return ""
    value, chance = (sum(side) / len(gaps) for side in zip(*gaps, strict=True))
    return f"A query and its document share {value:.0%} of their experts; random pairs share {chance:.0%}."


def _worth(quality: Facts) -> list[str]:
    if not quality:
        return []
    lines = []
    for way, changes in quality["scramble"].items():
        mean = sum(change["change"] for change in changes.values()) / len(changes)
        lines.append(f"With {_WAYS[way]}, nDCG@10 changes by {mean:+.3f} (mean of the domains).")
    cells = quality["ablation"]
    sure = [cell for cell in cells if cell["p_holm"] < 0.05]
    lines.append(f"Of {len(cells)} ablations, {len(sure)} change nDCG@10 by more than chance (Holm, 5 %).")
    worst = min(cells, key=lambda cell: cell["change"])
    if worst["change"] < 0:
        lines[-1] += (
            f" The largest loss: {worst['change']:+.3f} on {worst['domain']} with expert {worst['expert']} of layer "
            f"{worst['layer']} {worst['way']}{'' if worst in sure else ', which may be chance'}."
        )
    return lines


_WAYS = {
    "experts exchanged": "experts exchanged",
    "drawn at random": "choices drawn at random",
    "by token id": "choices by token id",
}
