"""The content of `ablation.json` as a terminal table, as Markdown and as an HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.terms import SIDES
from spectra_nsa.core.counts import counted
from spectra_nsa.report.html import Report
from spectra_nsa.report.svg import Estimate

if TYPE_CHECKING:
    from rich.table import Table

SIGNIFICANCE = 0.05
_LEAST = 9  # characters of a column of figures, so that no bound of an interval is broken
Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """A row of the table: a system's figures, or a part's effects.

    Attributes:
        name: the name of the system or part.
        in_recipe: whether the recipe has the part; ``""`` for a system.
        cells: one cell per metric; ``"–"`` without a figure.
        marked: which of the cells are findings.
        active: a cell with the mean active terms of queries and documents, with − without of a part; empty for dense
            vectors.
        time: the time of a training step with the part, divided by the time without; ``""`` for a system.
        verdict: the conclusion; ``""`` for a system.
    """

    name: str
    in_recipe: str = ""
    cells: Sequence[str]
    marked: Sequence[bool]
    active: Sequence[str] = ()
    time: str = ""
    verdict: str = ""

    def texts(self, cells: Sequence[str] | None = None) -> list[str]:
        """Returns the text of each column, with other `cells` if they are given."""
        return [self.name, self.in_recipe, *(cells or self.cells), *self.active, self.time, self.verdict]


def table_header(document: Document) -> list[str]:
    """Returns the column names of `table_rows`."""
    metrics = [_title(metric) for metric in document["metrics"]]
    active = [f"terms ({', '.join(SIDES)})"] if document.get("active") else []
    return ["part", "in recipe", *metrics, *active, "time ×", "verdict"]


def table_rows(document: Document) -> tuple[list[AblationRow], list[AblationRow]]:
    """Returns the rows of the systems (baselines and the recipe as it is) and those of the parts."""
    metrics, active = document["metrics"], document.get("active") or {}
    names = list(dict.fromkeys(name for metric in metrics for name in metric["baselines"]))
    figures = {name: [metric["baselines"].get(name) for metric in metrics] for name in names}
    figures["recipe"] = [metric["recipe"]["value"] for metric in metrics]
    systems = [
        _system("recipe as it is" if name == "recipe" else name, values, _active(active.get(name), active))
        for name, values in figures.items()
    ]
    return systems, [_part(part, metrics, active) for part in document["parts"]]


def reading_notes(document: Document) -> list[str]:
    """Returns the sentences that explain how to read the table."""
    seeds, count = len(document["seeds"]), sum(len(part["effects"]) for part in document["parts"])
    holm = f"p < 0.05 after Holm's correction for {count} comparison{'s' if count != 1 else ''}"
    notes = [
        f"An effect is the metric with the part minus the metric without it, as the mean of {counted(seeds, 'seed')}. "
        "Time × is the time of a training step with the part divided by the time without it."
    ]
    if seeds > 1:
        notes.append(f"Brackets: 95 % intervals over seeds and items. * A finding: {holm}.")
    else:
        notes.append(
            "Brackets: 95 % intervals over items only. Variation between seeds is often larger and does not show with "
            f"one seed: use --seeds 3. * {holm}, for this seed only."
        )
    if document.get("active"):
        notes.append(
            "Terms: the mean active terms of up to 128 training rows; of a part, those with it minus those without it."
        )
    return notes + [_detectable(metric, seeds) for metric in document["metrics"] if metric["smallest"] is not None]


def ablation_table(document: Document) -> Table:
    """Returns the table for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title_justify="left", title=_heading(document))
    header = table_header(document)
    for at, name in enumerate(header):
        right = 2 <= at < len(header) - 1
        least = _LEAST if 2 <= at < len(header) - 2 else None
        table.add_column(
            Text(name), justify="right" if right else "left", overflow="fold", no_wrap=at == 0, min_width=least
        )
    systems, parts = table_rows(document)
    wide = len(header) > 5  # then intervals are on a separate line, to fit a narrow terminal
    for row in (*systems, *parts):
        cells = [
            Text(text.replace(" (", "\n(") if wide else text, style="bold" if is_marked else "")
            for text, is_marked in zip(row.cells, row.marked, strict=True)
        ]
        table.add_row(
            Text(row.name),
            row.in_recipe,
            *cells,
            *row.active,
            row.time,
            Text(row.verdict),
            end_section=row is systems[-1],
        )
    return table


def ablation_markdown(document: Document) -> str:
    """Returns the table and its notes as Markdown."""
    columns = table_header(document)
    lines = [
        f"**{_heading(document)}**",
        "",
        "| " + " | ".join(columns) + " |",
        "|---|---|" + "---:|" * (len(columns) - 3) + "---|",
    ]
    for row in (row for group in table_rows(document) for row in group):
        cells = [f"**{text}**" if is_marked else text for text, is_marked in zip(row.cells, row.marked, strict=True)]
        lines.append("| " + " | ".join(row.texts(cells)).replace("*|", r"*\|") + " |")
    lines += ["", *(f"{note}  " for note in reading_notes(document))]
    return "\n".join([*lines, *(f"Note: {note}.  " for note in document["notes"])]) + "\n"


def ablation_page(document: Document) -> Report:
    """Returns the page: a forest plot per metric, the table, costs and settings."""
    start = document["recipe"]["model"]["start"] or document["recipe"]["model"]["size"] or "the default start"
    report = Report("The effect of each part", lead=f"{_heading(document)}; {start}, {document['created'][:10]}.")
    for metric in document["metrics"]:
        effects = [(part["part"], effect) for part in document["parts"] for effect in part["effects"]]
        report.add_forest(
            [Estimate(name=name, value=effect["value"], ci=tuple(effect["ci"]), marked=effect["p_holm"] < SIGNIFICANCE)
             for name, effect in effects if _is_of(effect, metric)],
            x_label=f"with − without, {metric['metric']}", title="Effects", caption=_title(metric),
        )  # fmt: skip
    shown = [row.texts() for group in table_rows(document) for row in group]
    report.add_grid(table_header(document), shown, title="Table")
    report.add_text(*reading_notes(document), *(f"Note: {note}." for note in document["notes"]))
    costs = [[part["part"], *(_times(part["cost"][key]) for key in _COSTS)] for part in document["parts"]]
    report.add_grid(["with ÷ without", *_COSTS.values()], costs, title="Cost")
    report.add_grid(
        ["part", "description", "changed keys"],
        [[part["part"], part["says"], _changes(part["changes"])] for part in document["parts"]],
        title="Parts",
    )
    report.add_settings(document["recipe"], title="Recipe")
    return report.add_settings(document["environment"], title="Environment")


_COSTS = {
    "seconds_per_step": "training step",
    "ms_per_text": "encoding a text",
    "gpu_memory_gb": "GPU memory",
    "parameters": "parameters",
}


def _heading(document: Document) -> str:
    cut = f", measured at {document['dim']} dimensions" if document["dim"] else ""
    seeds, steps = counted(len(document["seeds"]), "seed"), counted(document["steps"], "step")
    return f"{seeds} × {steps} on {counted(document['rows'], 'row')}{cut}"


def _title(metric: Mapping[str, Any]) -> str:
    return f"{metric['name']} {metric['metric']}"


def _is_of(effect: Mapping[str, Any], metric: Mapping[str, Any]) -> bool:
    return all(effect[key] == metric[key] for key in ("task", "name", "metric"))


def _system(name: str, values: Sequence[float | None], active: Sequence[str]) -> AblationRow:
    cells = ["–" if value is None else f"{value:.4f}" for value in values]
    return AblationRow(name=name, cells=cells, marked=[False] * len(cells), active=active)


def _active(values: Mapping[str, float] | None, shown: Mapping[str, Any], sign: str = "") -> list[str]:
    """Returns the cells of active terms: one, or none if no system has any."""
    if not shown:
        return []
    if values is None:
        return ["–"]
    return [", ".join(f"{round(values[side], 1) + 0.0:{sign}.1f}" for side in SIDES)]  # never -0.0


def _part(part: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], active: Mapping[str, Any]) -> AblationRow:
    effects = [next((effect for effect in part["effects"] if _is_of(effect, metric)), None) for metric in metrics]
    marked = [effect is not None and effect["p_holm"] < SIGNIFICANCE for effect in effects]
    return AblationRow(
        name=part["part"],
        in_recipe="no" if part["cell"].startswith("with-") else "yes",
        cells=[_effect(effect, star) for effect, star in zip(effects, marked, strict=True)],
        marked=marked,
        active=_active(part.get("active"), active, "+"),
        time=_times(part["cost"]["seconds_per_step"]),
        verdict=part["verdict"],
    )


def _effect(effect: Mapping[str, Any] | None, star: bool) -> str:
    if effect is None:
        return "the same"
    low, high = effect["ci"]
    return f"{effect['value']:+.4f} ({low:+.4f} to {high:+.4f}){'*' if star else ''}"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _changes(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())


def _detectable(metric: Mapping[str, Any], seeds: int) -> str:
    """Returns the smallest effect that the ablation can detect, and what a smaller one would take."""
    smallest = f"{_title(metric)}: the smallest effect detected with 80 % power is {metric['smallest']:.4f}"
    target = f"{metric['target']:g}"
    if metric["smallest"] <= metric["target"]:
        return f"{smallest}; {target} would be detected."
    if metric["target_seeds"] is not None:
        return f"{smallest}; detecting {target} would take {metric['target_seeds']} seeds."
    one_seed = "" if seeds > 1 else ", for this seed only"
    if metric["target_items"] is not None:
        return (
            f"{smallest}{one_seed}; no number of seeds would detect {target}: it takes at least "
            f"{metric['target_items']:,} items, and there are {metric['n']:,}."
        )
    return f"{smallest}{one_seed}." if seeds == 1 else f"{smallest}; detecting {target} would take over 200 seeds."
