"""Two runs side by side: the settings that differ, and the outcomes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spectra_nsa.report.format import duration, figure
from spectra_nsa.report.html import Report
from spectra_nsa.report.labels import label
from spectra_nsa.report.run_log import SHARES, RunLog, series_of
from spectra_nsa.report.run_page import MAIN_CHARTS, chart_groups
from spectra_nsa.report.run_status import run_status, seconds_running

_CHANGE_THE_LOSS = ("train.batch", "loss.", "model.matryoshka", "model.semantic_dims", "distill.")


def differing(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Returns dotted key → both values for the keys that differ; ``None`` if one side lacks the key."""
    differences: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*first, *second]):
        left, right = first.get(key), second.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            differences |= differing(left, right, f"{prefix}{key}.")
        elif left != right:
            differences[f"{prefix}{key}"] = (left, right)
    return differences


def compare_runs(first: RunLog, second: RunLog) -> dict[str, Any]:
    """Compares the recipes and the outcomes of two runs.

    Returns:
        ``runs`` (both folders), ``recipe`` (differing key → both values), ``outcomes`` (figure → both values, ``None``
        if a run lacks it), ``terms`` (the names of the loss terms among the outcomes) and ``notes``.
    """
    outcomes = [_outcome(run) for run in (first, second)]
    terms = [list(run_status(run.rows, now=0.0)["terms"]) for run in (first, second)]
    recipe = {key: list(values) for key, values in differing(first.recipe, second.recipe).items() if key != "name"}
    return {
        "schema": 1,
        "runs": [str(run.folder) for run in (first, second)],
        "recipe": recipe,
        "outcomes": {
            key: [outcome.get(key) for outcome in outcomes] for key in dict.fromkeys([*outcomes[0], *outcomes[1]])
        },
        "terms": list(dict.fromkeys([*terms[0], *terms[1]])),
        "notes": _notes(recipe, terms[0], terms[1]),
    }


def _notes(recipe: Mapping[str, Any], first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Returns a note if the losses of two runs cannot be compared."""
    reasons = [key for key in recipe if key.startswith(_CHANGE_THE_LOSS)]
    reasons += ["the loss terms"] if set(first) != set(second) and not reasons else []
    if not reasons:
        return []
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return [f"the losses are not comparable, because the runs differ in {', '.join(reasons[:3])}{more}"]


def _outcome(run: RunLog) -> dict[str, Any]:
    last = run.rows[-1]
    state = run_status(run.rows, now=last.get("time", 0.0))
    outcome: dict[str, Any] = {"status": state["status"], "steps": state["step"]}
    if state["dev"]:
        dev = state["dev"]
        outcome |= {f"{dev['metric']}, best": dev["best"], f"{dev['metric']}, last": dev["last"]}
        outcome["best step"] = dev["best_step"]
        if dev["kept_step"] is not None:
            outcome["kept step"] = dev["kept_step"]
    outcome |= {"loss": state["loss"]} | state["terms"] | state["throughput"] | state["memory"]
    outcome |= {f"health_{name}": value for name, value in state["health"].items()}
    outcome["seconds"] = round(seconds_running(run.rows), 1)
    return outcome | {"warnings": len(state["warnings"])}


def comparison_rows(
    facts: Mapping[str, Any], *, details: bool = True
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Returns the rows of both tables: settings that differ, and outcomes with their difference, second minus first.

    Args:
        facts: what `compare_runs` returns.
        details: whether outcomes include the loss terms and the health of the code bits.
    """
    settings = [(key, *(_shown(value) for value in values)) for key, values in facts["recipe"].items()]
    outcomes: list[tuple[str, ...]] = []
    hidden = () if details else facts.get("terms", ())
    for key, (left, right) in facts["outcomes"].items():
        if key in hidden or (not details and key.startswith("health_bits")):
            continue
        both = all(isinstance(value, int | float) for value in (left, right))
        gap = f"{'−' if right < left else '+'}{_figure(key, abs(right - left))}" if both else ""
        outcomes.append((label(key), _figure(key, left), _figure(key, right), gap))
    return settings, outcomes


def _figure(key: str, value: Any) -> str:
    """Formats an outcome in its unit."""
    if key == "seconds" and value is not None:
        return duration(value)
    return figure(value, share=True) if key in SHARES and value is not None else _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{value:,}" if isinstance(value, int) else figure(value)


def run_names(first: RunLog, second: RunLog) -> tuple[str, str]:
    """Returns the runs' names, or their folders if the names are the same."""
    names = first.folder.name, second.folder.name
    return names if names[0] != names[1] else (str(first.folder), str(second.folder))


def comparison_page(first: RunLog, second: RunLog) -> Report:
    """Returns the comparison as a page; each chart shows the curves of both runs."""
    names = run_names(first, second)
    facts = compare_runs(first, second)
    settings, outcomes = comparison_rows(facts)
    report = Report(
        f"Runs {names[0]} and {names[1]}", lead="Two training runs. Differences are the second run minus the first."
    )
    report.add_grid(("setting", *names), settings, title="Recipe: differing keys")
    report.add_grid(("outcome", *names, "difference"), outcomes, title="Outcome")
    for note in facts["notes"]:
        report.add_text(f"Note: {note}.")
    report.add_text(
        "Runs that differ only in their seed differ in outcome too. A difference means something only if it is larger "
        "than that between seeds."
    )
    for title, keys in chart_groups([first, second]).items():
        charts = {
            label(key): {name: series_of(run.rows, key) for name, run in zip(names, (first, second), strict=True)}
            for key in keys
        }
        report.add_lines(charts, title=title, collapsed=title not in MAIN_CHARTS)
    return report
