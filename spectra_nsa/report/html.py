"""A report as one HTML file: no script, no network, readable in light and dark, and on paper."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from spectra_nsa.core.errors import missing_extra
from spectra_nsa.core.files import atomic_write
from spectra_nsa.core.results import Result
from spectra_nsa.report.examples import Example, FoundTexts, select_examples
from spectra_nsa.report.svg import Estimate, Point, forest, histogram, line_chart
from spectra_nsa.report.tables import number, tables

if TYPE_CHECKING:
    from jinja2 import Template

_NOT_CURVES = {"step", "epoch"}
_LONGEST = 700  # characters of a text that are shown


class Report:
    """Collects sections in order; each `add_…` returns the report itself."""

    def __init__(self, title: str, *, lead: str = "") -> None:
        """Starts an empty report.

        Args:
            title: the heading.
            lead: a sentence or two below it; ``""`` for none.
        """
        self._title, self._lead = title, lead
        self._sections: list[dict[str, Any]] = []

    def add_facts(self, facts: Mapping[str, object], *, title: str = "") -> Self:
        """Key figures side by side: label → value; floats get three decimals."""
        shown = {label: number(value) if isinstance(value, float) else str(value) for label, value in facts.items()}
        return self._add("facts", title, facts=shown)

    def add_text(self, *paragraphs: str, title: str = "") -> Self:
        """Plain paragraphs."""
        return self._add("text", title, paragraphs=paragraphs) if paragraphs else self

    def add_table(
        self, results: Sequence[Result], *, differences: Sequence[Mapping[str, Any]] = (), title: str = "Results"
    ) -> Self:
        """A table a data set: metrics down, systems across, intervals beside, the best in bold.

        Args:
            results: the figures.
            differences: entries as under ``differences`` in a results document: each becomes a column
                ``system − baseline``, marked where its interval excludes 0.
            title: the section's heading.
        """
        if not results:
            return self
        blocks = [{"table": table, "gaps": _gaps(table.title, differences)} for table in tables(results)]
        return self._add("tables", title, blocks=blocks)

    def add_curve(self, rows: Sequence[Mapping[str, Any]], *, title: str = "Training") -> Self:
        """One small chart for each number that the rows of a `metrics.jsonl` follow over `step`.

        Args:
            rows: each with ``step`` and any of loss, learning rate, dev metrics, …; what is no number is passed over,
                and so is a key that occurs only once.
            title: the section's heading.
        """
        series: dict[str, list[tuple[float, float]]] = {}
        for at, row in enumerate(rows):
            for key, value in row.items():
                if key not in _NOT_CURVES and isinstance(value, int | float) and not isinstance(value, bool):
                    series.setdefault(key, []).append((float(row.get("step", at)), float(value)))
        charts = [
            {"title": key, "svg": line_chart({key: points}, x_label="step", y_label=key), "names": []}
            for key, points in series.items()
            if len(points) > 1
        ]
        return self._add("charts", title, charts=charts) if charts else self

    def add_lines(
        self,
        charts: Mapping[str, Mapping[str, Sequence[Point]]],
        *,
        title: str,
        x_label: str = "step",
        log_x: bool = False,
        single_points: bool = False,
    ) -> Self:
        """One chart for each entry: its title → name of a line → points.

        Args:
            charts: see above. Lines are named below a chart that has two or more.
            title: the section's heading.
            x_label: under the axis.
            log_x: whether that axis is logarithmic.
            single_points: whether a line of one point is drawn, as a dot, or left out.
        """
        shown = []
        for name, lines in charts.items():
            drawn = {line: points for line, points in lines.items() if len(points) > (0 if single_points else 1)}
            svg = line_chart(drawn, x_label=x_label, y_label=name, log_x=log_x)
            if svg:
                shown.append({"title": name, "svg": svg, "names": list(drawn) if len(lines) > 1 else []})
        return self._add("charts", title, charts=shown) if shown else self

    def add_grid(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str) -> Self:
        """A plain table of texts."""
        return self._add("grid", title, header=header, rows=rows) if rows else self

    def add_histogram(
        self,
        groups: Mapping[str, Iterable[float]],
        *,
        x_label: str = "cosine",
        title: str = "Scores",
        caption: str = "",
    ) -> Self:
        """Overlaid distributions, such as the cosines of positives and of negatives.

        Args:
            groups: name → values (a list or an array).
            x_label: what the values are.
            title: the section's heading.
            caption: above the chart, such as the system's name.
        """
        svg = histogram({name: [float(v) for v in values] for name, values in groups.items()}, x_label=x_label)
        if not svg:
            return self
        return self._add("charts", title, charts=[{"title": caption, "svg": svg, "names": list(groups)}])

    def add_forest(self, estimates: Sequence[Estimate], *, x_label: str, title: str, caption: str = "") -> Self:
        """Values with their intervals on both sides of zero, see `svg.forest`; nothing where there are none."""
        svg = forest(estimates, x_label=x_label)
        return self._add("charts", title, charts=[{"title": caption, "svg": svg, "names": []}]) if svg else self

    def add_hits(self, hits: Mapping[str, Sequence[FoundTexts]], *, title: str = "Examples", each: int = 4) -> Self:
        """Queries worth looking at: the wanted answer beside each system's first one, and the wanted one's rank.

        Args:
            hits: system → one entry a query, in the same order for every system.
            title: the section's heading.
            each: queries a group, see `select_examples`.
        """
        examples = [_shown(example) for example in select_examples(hits, each=each)]
        return self._add("hits", title, examples=examples) if examples else self

    def add_settings(self, settings: Mapping[str, Any], *, title: str) -> Self:
        """A configuration or an environment, folded up: nested values are shown as JSON."""
        rows = {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1, default=str)
            for key, value in settings.items()
        }
        return self._add("settings", title, rows=rows) if rows else self

    def render(self) -> str:
        """The page.

        Raises:
            SpectraError: jinja2 is not installed.
        """
        return _template().render(title=self._title, lead=self._lead, sections=_grouped(self._sections))

    def write(self, path: str | Path) -> Path:
        """Writes the page, whole or not at all, and returns its path."""
        page = self.render()
        with atomic_write(path) as file:
            file.write(page)
        return Path(path)

    def _add(self, kind: str, title: str, **content: Any) -> Self:
        self._sections.append({"kind": kind, "title": title, **content})
        return self


@dataclass(frozen=True, kw_only=True)
class _Gap:
    """One cell of a difference column."""

    text: str
    interval: str
    verdict: str  # "up", "down" or "": where the interval lies


def _gaps(table_title: str, differences: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, _Gap]]:
    """``system − baseline`` → metric → cell, for the differences that belong to a table."""
    columns: dict[str, dict[str, _Gap]] = {}
    for one in differences:
        if f"{one['task']} · {one['name']}" != table_title:
            continue
        low, high = one["ci"]
        verdict = "up" if low > 0 else "down" if high < 0 else ""
        gap = _Gap(text=f"{one['value']:+.3f}", interval=f"{low:+.3f} to {high:+.3f}", verdict=verdict)
        columns.setdefault(f"{one['system']} − {one['baseline']}", {})[one["metric"]] = gap
    return columns


def _shown(example: Example) -> dict[str, Any]:
    answers = []
    for system, found in example.by_system:
        first = found.found[0] if found.found else None
        answers.append(
            {
                "system": system,
                "rank": "not in the first 100" if found.rank is None else f"found at rank {found.rank}",
                "right": found.rank == 1,
                "score": f"{first.score:.3f}" if first else "",
                "text": _answer(first.text, example.wanted) if first else "(nothing found)",
            }
        )
    count = len(example.by_system[0][1].wanted)
    return {
        "query": _cut(example.query),
        "label": example.label,
        "wanted": _cut(example.wanted),
        "of": f"one of {count} wanted" if count > 1 else "wanted",
        "answers": answers,
    }


def _answer(text: str, wanted: str) -> str:
    return "(the same text)" if text == wanted else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + " …"


def _grouped(sections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring chart sections of one title become one, so that their charts stand side by side."""
    grouped: list[dict[str, Any]] = []
    for section in sections:
        last = grouped[-1] if grouped else None
        if last and section["kind"] == last["kind"] == "charts" and section["title"] == last["title"]:
            last["charts"] = [*last["charts"], *section["charts"]]
        else:
            grouped.append(dict(section))
    return grouped


@cache
def _template() -> Template:
    try:
        import jinja2
    except ImportError as error:
        raise missing_extra("jinja2", "report") from error
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html")
