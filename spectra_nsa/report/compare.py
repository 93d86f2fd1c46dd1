"""Two runs side by side: what was set otherwise, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spectra_nsa.report.frame import duration, figure
from spectra_nsa.report.html import Report
from spectra_nsa.report.run_page import chart_groups
from spectra_nsa.report.runlog import RunLog, series_of, standing


def differing(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key → both values, where two nested settings differ; a key that one lacks is ``None`` there."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*first, *second]):
        one, other = first.get(key), second.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found |= differing(one, other, f"{prefix}{key}.")
        elif one != other:
            found[f"{prefix}{key}"] = (one, other)
    return found


def compare_runs(first: RunLog, second: RunLog) -> dict[str, Any]:
    """Both names, the recipe's keys that differ, and the outcome of each run.

    Returns:
        ``runs``, ``recipe`` (key → both values) and ``outcomes`` (figure → both values, ``None`` where one has none).
    """
    outcomes = [_outcome(run) for run in (first, second)]
    return {
        "schema": 1,
        "runs": [str(run.folder) for run in (first, second)],
        "recipe": {
            key: list(values) for key, values in differing(first.recipe, second.recipe).items() if key != "name"
        },
        "outcomes": {key: [one.get(key) for one in outcomes] for key in dict.fromkeys([*outcomes[0], *outcomes[1]])},
    }


def _outcome(run: RunLog) -> dict[str, Any]:
    last = run.rows[-1]
    state = standing(run.rows, now=last["time"])
    found: dict[str, Any] = {"status": state["status"], "steps": state["step"]}
    if state["dev"]:
        dev = state["dev"]
        found |= {f"{dev['metric']}, best": dev["best"], f"{dev['metric']}, last": dev["last"]}
        found["best step"] = dev["best_step"]
        if dev["kept_step"] is not None:
            found["kept step"] = dev["kept_step"]
    found |= {"loss": state["loss"]} | state["terms"] | state["throughput"] | state["memory"]
    found |= {f"health_{name}": value for name, value in state["health"].items()}
    found["seconds"] = round(last["time"] - run.rows[0]["time"], 1)
    return found | {"warnings": len(state["warnings"])}


def comparison_rows(facts: Mapping[str, Any]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The lines of both tables: settings that differ, and outcomes with their difference."""
    settings = [(key, *(_shown(value) for value in values)) for key, values in facts["recipe"].items()]
    outcomes = []
    for key, (one, other) in facts["outcomes"].items():
        both = all(isinstance(value, int | float) for value in (one, other))
        shown = [duration(v) if key == "seconds" and v is not None else _shown(v) for v in (one, other)]
        outcomes.append((key, *shown, f"{other - one:+.4g}" if both else ""))
    return settings, outcomes


def _shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{value:,}" if isinstance(value, int) else figure(value)


def names_of(first: RunLog, second: RunLog) -> tuple[str, str]:
    """The runs' names; their folders where the names are the same."""
    one, other = first.folder.name, second.folder.name
    return (one, other) if one != other else (str(first.folder), str(second.folder))


def comparison_page(first: RunLog, second: RunLog) -> Report:
    """The comparison as a page, the curves of both runs in one chart each."""
    names = names_of(first, second)
    settings, outcomes = comparison_rows(compare_runs(first, second))
    report = Report(
        f"{names[0]} and {names[1]}", lead="Two training runs; differences are the second's minus the first's."
    )
    report.add_grid(("setting", *names), settings, title="Recipe: what differs")
    report.add_grid(("outcome", *names, "difference"), outcomes, title="Outcome")
    report.add_text(
        "Two runs that differ in the seed alone differ too: a difference is a finding only when it is larger than that."
    )
    for title, keys in chart_groups([first, second]).items():
        charts = {
            key: {name: series_of(run.rows, key) for name, run in zip(names, (first, second), strict=True)}
            for key in keys
        }
        report.add_lines(charts, title=title)
    return report
