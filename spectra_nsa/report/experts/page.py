"""An analysis of experts as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectra_nsa.report.experts.charts import band_chart, clustered, heat_map, routes_chart
from spectra_nsa.report.experts.summary import HEADER, KEY, findings, layer_rows
from spectra_nsa.report.html import Report

_CURVES = (
    ("domain_information", "domain"),
    ("token_information", "token"),
    ("domain_beyond_token", "domain beyond the token"),
)
_NULL = "Shaded: what 95 % of shuffled choices stay below. The table above has the values less their mean."


def experts_page(document: Mapping[str, Any]) -> Report:
    """Returns the page of an analysis, a document of `spectra moe analyze`."""
    experts, layers = document["experts"], document["layers"]
    report = Report(f"Experts of {document['model']}", lead=_lead(document))
    report.add_facts(_facts(document))
    report.add_text(*findings(document), title="Findings")
    report.add_grid(HEADER, layer_rows(document), title="Layers")
    report.add_text(KEY)
    numbers, names = [layer["layer"] for layer in layers], [str(e) for e in range(experts["count"])]
    rows = [f"layer {number}" for number in numbers]
    even = 1 / experts["count"]
    load = heat_map([[share / even - 1 for share in layer["load"]] for layer in layers], rows, names, label="load")
    report.add_pictures({"load over an equal share, less 1: layer × expert": load}, title="Load")
    _add_domains(report, layers, names)
    _add_information(report, layers, numbers)
    _add_words(report, document)
    _add_relations(report, document, names, numbers)
    _add_worth(report, document, names)
    report.add_settings(document["environment"], title="Environment")
    return report


def _lead(document: Mapping[str, Any]) -> str:
    experts = document["experts"]
    per = "token" if "tokens" in document["layers"][0] else "text"
    chosen = "all mixed" if experts["router"] == "smear" else experts["top_k"]
    return (
        f"{experts['count']} experts in {len(experts['layers'])} layers, {chosen} for each {per} (router "
        f"{experts['router']}); {document['choices']:,} choices in texts of {len(document['domains'])} domains."
    )


def _facts(document: Mapping[str, Any]) -> dict[str, object]:
    facts: dict[str, object] = {
        name: f"{size['pairs']:,} pairs" if size["pairs"] else f"{size['texts']:,} texts"
        for name, size in document["domains"].items()
    }
    quality = document.get("quality") or {}
    if quality:
        figures = list(quality["ndcg@10"].values())
        facts["nDCG@10, all documents together"] = sum(figures) / len(figures)
    return facts


def _add_domains(report: Report, layers: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    charts = {}
    for layer in layers:
        rows, values = list(layer["lift"]), list(layer["lift"].values())
        charts[f"layer {layer['layer']}"] = heat_map(values, rows, names, label="lift of domains", full=2.0)
    note = (
        "log₂ of an expert's share of the domain's choices over its share of all, without special tokens: +1 is twice "
        "as often, −1 half."
    )
    report.add_pictures(charts, title="Domains", note=note)


def _add_information(report: Report, layers: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> None:
    curves = [
        (name, [layer[key]["value"] for layer in layers], [layer[key]["null_95"] for layer in layers])
        for key, name in _CURVES
        if key in layers[0]
    ]
    if curves:
        chart = band_chart(curves, numbers, label="information over layers")
        names = [name for name, _, _ in curves]
        report.add_pictures({"share of what there is to know": chart}, title="Information", names=names, note=_NULL)
    more = [("vocabulary", "one token id, one expert"), ("vocabulary_by_occurrence", "the same, by occurrence")]
    curves = [
        (name, [layer[key]["value"] for layer in layers], [layer[key]["null_95"] for layer in layers])
        for key, name in more
        if key in layers[0]
    ]
    if curves:
        curves.append(
            (
                "neighbors share an expert",
                [layer["locality"] for layer in layers],
                [layer["locality_by_chance"] for layer in layers],
            )
        )
        names = [name for name, _, _ in curves]
        chart = band_chart(curves, numbers, label="vocabulary and neighbors")
        report.add_pictures({"vocabulary and neighbors": chart}, title="Information", names=names)


def _add_words(report: Report, document: Mapping[str, Any]) -> None:
    layers = document["layers"]
    for layer in layers:
        if "tokens" not in layer:
            return
        rows = [
            (str(expert), ", ".join(f"{word['token']} {word['share']:.0%} of {word['count']}" for word in words) or "–")
            for expert, words in enumerate(layer["tokens"])
        ]
        report.add_grid(
            ("expert", "its tokens (10 or more occurrences)"), rows, title=f"Tokens, layer {layer['layer']}"
        )
    for example in document["examples"]:
        panes = [
            (f"layer {layer['layer']}", list(zip(example["tokens"], experts, strict=True)))
            for layer, experts in zip(layers, example["experts"], strict=True)
        ]
        report.add_tokens(panes, title="Texts, colored by expert", caption=example["domain"])


def _add_relations(report: Report, document: Mapping[str, Any], names: Sequence[str], numbers: Sequence[int]) -> None:
    layers = document["layers"]
    paths = [(path["experts"], path["share"]) for path in document["paths"]]
    report.add_pictures({"the most frequent routes": routes_chart(paths, numbers, len(names))}, title="Routes")
    charts = {}
    for layer in layers:
        if "coactivation" in layer:
            order = clustered(layer["coactivation"])
            values = [[layer["coactivation"][i][j] for j in order] for i in order]
            labels = [names[i] for i in order]
            charts[f"layer {layer['layer']}: j chosen where i is"] = heat_map(values, labels, labels, label="together")
    for below, above, matrix in zip(numbers, numbers[1:], document["transitions"], strict=False):
        charts[f"from layer {below} to {above}"] = heat_map(matrix, names, names, label="transitions", full=1.0)
    report.add_pictures(charts, title="Experts chosen together, and one after another")
    apart = {
        f"layer {layer['layer']}": heat_map(layer["distance"]["outputs_by_pair"], names, names, label="distance")
        for layer in layers
    }
    report.add_pictures(apart, title="How different experts are", note="1 − CKA of what two experts compute.")
    if len(document["saturation"]) > 1:
        lines = {
            f"layer {number}": [(float(row["step"]), row["layers"][at]) for row in document["saturation"]]
            for at, number in enumerate(numbers)
        }
        report.add_lines({"share of the final choices": lines}, title="Saturation", single_points=True)
    for gate, by_domain in document["gates"].items():
        rows, values = list(by_domain), [[value - 1 for value in row] for row in by_domain.values()]
        columns = [str(at) for at in range(len(values[0]))]
        chart = heat_map(values, rows, columns, label=gate)
        report.add_pictures({f"{gate}, less 1: domain × candidate": chart}, title="Gates")


def _add_worth(report: Report, document: Mapping[str, Any], names: Sequence[str]) -> None:
    quality = document.get("quality") or {}
    if not quality:
        return
    domains = list(quality["ndcg@10"])
    charts = {}
    cells = quality["ablation"]
    full = max(abs(cell["change"]) for cell in cells) or 1.0
    for layer in document["layers"]:
        for way in ("removed", "silenced"):
            own = {(c["expert"], c["domain"]): c for c in cells if c["layer"] == layer["layer"] and c["way"] == way}
            values = [[own[e, domain]["change"] for domain in domains] for e in range(len(names))]
            muted = [[own[e, domain]["p_holm"] >= 0.05 for domain in domains] for e in range(len(names))]
            rows = [f"expert {name}" for name in names]
            chart = heat_map(values, rows, domains, label=f"ablation, {way}", full=full, muted=muted)
            charts[f"layer {layer['layer']}, {way}"] = chart
    note = (
        "Change of nDCG@10. Removed: the next best expert takes over. Silenced: nothing does. Gray: not "
        "distinguishable from chance (Holm over all cells, 5 %)."
    )
    report.add_pictures(charts, title="What experts are worth", note=note)
    changes = [
        [way, *(_with_interval(by_domain[name]) for name in domains)] for way, by_domain in quality["scramble"].items()
    ]
    report.add_grid(("choices", *domains), changes, title="Scrambled choices, change of nDCG@10")
    most = len(names) // (document["experts"]["top_k"] if document["experts"]["sliced"] else 1)
    lines = {
        name: [(float(most - len(figures) + 1 + at), figure) for at, figure in enumerate(figures)]
        for name, figures in quality["subsets"].items()
    }
    title = "A domain with its m most used experts"
    report.add_lines({"nDCG@10 among the domain's own documents": lines}, title=title, x_label="m", single_points=True)


def _with_interval(change: Mapping[str, Any]) -> str:
    low, high = change["ci"]
    return f"{change['change']:+.3f} ({low:+.3f} to {high:+.3f})"
