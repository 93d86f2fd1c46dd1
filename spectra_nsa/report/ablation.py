"""An ablation, as `ablation.json` holds it, for the terminal, as Markdown and as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra_nsa.report.html import Report
from spectra_nsa.report.svg import Estimate

if TYPE_CHECKING:
    from rich.table import Table

LEVEL = 0.05
Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: a system's figures, or a part's effects.

    Attributes:
        name: the system's or the part's.
        has: whether the recipe has the part; ``""`` for a system.
        cells: one a metric; ``"–"`` where there is none.
        marked: which of them are findings.
        time: of a training step, with the part over without it; ``""`` for a system.
        verdict: in words; ``""`` for a system.
    """

    name: str
    has: str = ""
    cells: Sequence[str]
    marked: Sequence[bool]
    time: str = ""
    verdict: str = ""


def header(document: Document) -> list[str]:
    """The columns of `rows`."""
    return ["part", "in recipe", *(_title(one) for one in document["metrics"]), "time ×", "verdict"]


def rows(document: Document) -> tuple[list[Row], list[Row]]:
    """The systems (baselines and the recipe as it is), and the parts."""
    metrics = document["metrics"]
    names = list(dict.fromkeys(name for one in metrics for name in one["baselines"]))
    systems = [_system(name, [one["baselines"].get(name) for one in metrics]) for name in names]
    systems.append(_system("recipe as it is", [one["recipe"]["value"] for one in metrics]))
    return systems, [_part(part, metrics) for part in document["parts"]]


def lines(document: Document) -> list[str]:
    """What has to be known to read the table."""
    seeds, count = len(document["seeds"]), sum(len(part["effects"]) for part in document["parts"])
    said = [
        f"Effects are with − without the part, the mean of {_seeds(seeds)}; time × is a step's time with ÷ without."
    ]
    if seeds > 1:
        said.append(
            "In brackets 95 % intervals over other seeds and other items; * a finding: p < 0.05 after Holm's "
            f"correction for {count} comparison{'s' if count != 1 else ''}."
        )
    else:
        said.append(
            "One seed: the intervals are of other items only, and say nothing of other seeds, whose noise is often the "
            f"larger; take --seeds 3. * p < 0.05 after Holm's correction for {count}, of this seed."
        )
    return said + [_reach(one, seeds) for one in document["metrics"] if one["smallest"] is not None]


def ablation_table(document: Document) -> Table:
    """The table for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title_justify="left", title=_heading(document))
    for at, name in enumerate(header(document)):
        right = 2 <= at < 3 + len(document["metrics"])
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    systems, parts = rows(document)
    several = len(document["metrics"]) > 1  # then intervals stand below, so that the table fits a narrow terminal
    for row in (*systems, *parts):
        cells = [
            Text(text.replace(" (", "\n(") if several else text, style="bold" if is_marked else "")
            for text, is_marked in zip(row.cells, row.marked, strict=True)
        ]
        table.add_row(Text(row.name), row.has, *cells, row.time, Text(row.verdict), end_section=row is systems[-1])
    return table


def ablation_markdown(document: Document) -> str:
    """The table and its lines as Markdown."""
    columns = header(document)
    said = [
        f"**{_heading(document)}**",
        "",
        "| " + " | ".join(columns) + " |",
        "|---|---|" + "---:|" * (len(columns) - 3) + "---|",
    ]
    for row in (one for group in rows(document) for one in group):
        cells = [f"**{text}**" if is_marked else text for text, is_marked in zip(row.cells, row.marked, strict=True)]
        said.append("| " + " | ".join([row.name, row.has, *cells, row.time, row.verdict]).replace("*|", r"*\|") + " |")
    said += ["", *(f"{line}  " for line in lines(document))]
    return "\n".join([*said, *(f"Note: {note}.  " for note in document["notes"])]) + "\n"


def ablation_page(document: Document) -> Report:
    """The page: a forest plot a metric, the table, costs, settings."""
    start = document["recipe"]["model"]["start"] or document["recipe"]["model"]["size"]
    report = Report("What each part is worth", lead=f"{_heading(document)}; {start}, {document['created'][:10]}.")
    for metric in document["metrics"]:
        found = [(part["part"], one) for part in document["parts"] for one in part["effects"] if _of(one, metric)]
        report.add_forest(
            [Estimate(name=name, value=one["value"], ci=tuple(one["ci"]), marked=one["p_holm"] < LEVEL)
             for name, one in found],
            x_label=f"with − without, {metric['metric']}", title="Effects", caption=_title(metric),
        )  # fmt: skip
    shown = [[row.name, row.has, *row.cells, row.time, row.verdict] for group in rows(document) for row in group]
    report.add_grid(header(document), shown, title="Table")
    report.add_text(*lines(document), *(f"Note: {note}." for note in document["notes"]))
    costs = [[part["part"], *(_times(part["cost"][key]) for key in _COSTS)] for part in document["parts"]]
    report.add_grid(["with ÷ without", *_COSTS.values()], costs, title="Cost")
    report.add_grid(
        ["part", "what it is", "what was changed"],
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
    return f"{_seeds(len(document['seeds']))} × {document['steps']:,} steps on {document['rows']:,} rows{cut}"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _title(metric: Mapping[str, Any]) -> str:
    return f"{metric['name']} {metric['metric']}"


def _of(one: Mapping[str, Any], metric: Mapping[str, Any]) -> bool:
    return all(one[key] == metric[key] for key in ("task", "name", "metric"))


def _system(name: str, values: Sequence[float | None]) -> Row:
    cells = ["–" if value is None else f"{value:.4f}" for value in values]
    return Row(name=name, cells=cells, marked=[False] * len(cells))


def _part(part: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> Row:
    found = [next((one for one in part["effects"] if _of(one, metric)), None) for metric in metrics]
    marked = [one is not None and one["p_holm"] < LEVEL for one in found]
    return Row(
        name=part["part"],
        has="no" if part["cell"].startswith("with-") else "yes",
        cells=[_effect(one, star) for one, star in zip(found, marked, strict=True)],
        marked=marked,
        time=_times(part["cost"]["seconds_per_step"]),
        verdict=part["verdict"],
    )


def _effect(one: Mapping[str, Any] | None, star: bool) -> str:
    if one is None:
        return "the same"
    low, high = one["ci"]
    return f"{one['value']:+.4f} ({low:+.4f} to {high:+.4f}){'*' if star else ''}"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _changes(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())


def _reach(metric: Mapping[str, Any], seeds: int) -> str:
    found = f"{_title(metric)}: the smallest effect found four times in five is {metric['smallest']:.4f}"
    target = f"{metric['target']:g}"
    if metric["smallest"] <= metric["target"]:
        return f"{found}; {target} would be found."
    if metric["target_seeds"] is not None:
        return f"{found}; {target} would take {metric['target_seeds']} seeds."
    if metric["target_items"] is not None:
        more = "" if seeds > 1 else ", of this seed alone"
        return (
            f"{found}{more}; {target} is out of reach of any number of seeds: it takes {metric['target_items']:,} "
            f"items or more, not {metric['n']:,}."
        )
    return f"{found}, of this seed alone." if seeds == 1 else f"{found}; {target} would take more than 200 seeds."
