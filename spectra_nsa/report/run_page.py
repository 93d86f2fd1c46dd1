"""A run as one HTML page: status, warnings, curves, recipe, environment."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from spectra_nsa.report.format import duration, figure, step_label
from spectra_nsa.report.html import Report
from spectra_nsa.report.labels import label
from spectra_nsa.report.run_log import (
    DEV,
    FULLEST,
    GATE,
    HEALTH,
    LOAD,
    MEMORY,
    SET_LOSS,
    THROUGHPUT,
    RunLog,
    embedding_term,
    expert_layers,
    series_names,
    series_of,
    terms_of,
)
from spectra_nsa.report.run_status import run_status, seconds_running

MAIN_CHARTS = ("Dev metric", "Loss")  # the others are collapsed


LOSS_NOTE = (
    "The loss is the sum of all terms, each times its weight, and includes those of the heads (codes, anchors, anomaly "
    "score). How the embedding learns is seen in the dev metric and in the semantic terms."
)


def run_page(run: RunLog) -> Report:
    """Returns the page of a run, from what it has logged so far."""
    last = run.rows[-1].get("time", 0.0) if run.rows else 0.0
    state = run_status(run.rows, now=last)
    report = Report(f"Run {run.folder.name}", lead=_lead(run, state, last))
    report.add_facts(_facts(run, state))
    warnings = [(f"{row['step']:,}", row["kind"], row["message"], row["remedy"]) for row in state["warnings"]]
    report.add_grid(("step", "warning", "what happened", "what to do"), warnings, title="Warnings")
    groups = chart_groups([run])
    if "Loss terms" in groups:
        report.add_text(LOSS_NOTE)
    for title, names in groups.items():
        charts = {label(name): {label(name): series_of(run.rows, name)} for name in names}
        report.add_lines(charts, title=title, collapsed=title not in MAIN_CHARTS)
    _add_experts(report, run)
    report.add_settings(run.recipe, title="Recipe")
    return report.add_settings(state["started"].get("environment") or {}, title="Environment")


def chart_groups(runs: Sequence[RunLog]) -> dict[str, list[str]]:
    """Returns section title → the keys drawn in it, over all runs."""
    rows = [row for run in runs for row in run.rows]
    names = series_names(rows)
    terms = [name for name in names if any(name in terms_of(row) for row in rows if "loss" in row)]
    groups: dict[str, list[str]] = {
        "Dev metric": [name for name in names if name.startswith(DEV)],
        "Loss": [name for name in (embedding_term(terms), "loss") if name in names],
        "Loss of each dataset": [name for name in names if name.startswith(SET_LOSS)],
        "Loss terms": [name for name in terms if name != embedding_term(terms)],
        "Optimizer": [name for name in ("learning_rate", "temperature", "grad_norm") if name in names],
        "Gradient norm of each loss term": [name for name in names if name.startswith("grad_norm_")],
        "Speed and memory": [name for name in (*THROUGHPUT, *MEMORY) if name in names],
        "Health of the vectors": [name for name in names if name.startswith(HEALTH)],
    }
    return {title: keys for title, keys in groups.items() if keys}


def _add_experts(report: Report, run: RunLog) -> None:
    """Adds how full the fullest expert of each layer is, the entropy of the gates, and the load of each expert."""
    layers = expert_layers(run.rows)
    if not layers:
        return
    charts = {
        title: {f"layer {layer}": series_of(run.rows, f"{prefix}{layer}") for layer in layers}
        for title, prefix in (("fullest expert, load / mean − 1", FULLEST), ("entropy of the gate, 1 if even", GATE))
    }
    report.add_lines(charts, title="Experts")
    names = series_names(run.rows)
    loads: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for layer in layers:
        own = [name for name in names if name.startswith(f"{LOAD}{layer}_")]
        experts = {f"expert {name.rpartition('_')[2]}": series_of(run.rows, name) for name in own}
        loads[f"layer {layer}: share of each expert"] = experts
    report.add_lines(loads, title="Load of the experts", collapsed=True)


def _lead(run: RunLog, state: Mapping[str, Any], last: float) -> str:
    if not run.rows:
        return "Nothing has been logged yet."
    when = datetime.datetime.fromtimestamp(last).astimezone().isoformat(sep=" ", timespec="minutes")
    of = f" of {state['steps']:,}" if state["steps"] else ""
    return f"{state['status'].capitalize()} at step {state['step']:,}{of}, {when}."


def _facts(run: RunLog, state: Mapping[str, Any]) -> dict[str, object]:
    train = [row for row in run.rows if "loss" in row]
    facts: dict[str, object] = {}
    if state["dev"]:
        dev = state["dev"]
        facts[f"best {dev['metric']}"] = f"{dev['best']:.4f}"
        facts["best step"] = step_label(dev["best_step"])
        if dev["kept_step"] is not None and dev["kept_step"] != dev["best_step"]:
            facts[f"{dev['metric']} of model/"] = "–" if dev["kept"] is None else f"{dev['kept']:.4f}"
            facts["model/ is from"] = step_label(dev["kept_step"])
    if train:
        facts["loss"] = f"{figure(train[0]['loss'])} → {figure(train[-1]['loss'])}"
    facts["steps"] = f"{state['step']:,}"
    if len(run.rows) > 1:
        facts["time"] = duration(seconds_running(run.rows))
    if "pairs_per_second" in state["throughput"]:
        facts[label("pairs_per_second")] = figure(state["throughput"]["pairs_per_second"])
    facts["warnings"] = str(len(state["warnings"]))
    return facts
