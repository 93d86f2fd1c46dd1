"""A report as one HTML file: no scripts, no network, readable in light and dark mode and on paper."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from spectra_nsa.core.errors import missing_extra
from spectra_nsa.core.files import atomic_write
from spectra_nsa.core.results import Result
from spectra_nsa.report.examples import Example, RankedQueryLike, select_examples
from spectra_nsa.report.format import number
from spectra_nsa.report.svg import Bar, Estimate, Point, bars, forest, histogram, line_chart
from spectra_nsa.report.tables import difference_columns, result_tables

if TYPE_CHECKING:
    from jinja2 import Template

_NOT_CURVES = {"step", "epoch"}
_TEXT_LIMIT = 700  # characters
_CONTINUED = ("charts", "heat", "tokens")  # kinds of sections that may share a heading


class Report:
    """Collects sections in order. Each `add_…` method returns the report itself."""

    def __init__(self, title: str, *, lead: str = "") -> None:
        """Starts an empty report.

        Args:
            title: the heading.
            lead: one or two sentences below it; ``""`` for none.
        """
        self._title, self._lead = title, lead
        self._sections: list[dict[str, Any]] = []

    def add_facts(self, facts: Mapping[str, object], *, title: str = "") -> Self:
        """Adds key figures side by side: label → value. Floats get three decimals."""
        shown = {label: number(value) if isinstance(value, float) else str(value) for label, value in facts.items()}
        return self._add("facts", title, facts=shown)

    def add_text(self, *paragraphs: str, title: str = "") -> Self:
        """Adds plain paragraphs."""
        return self._add("text", title, paragraphs=paragraphs) if paragraphs else self

    def add_table(
        self, results: Sequence[Result], *, differences: Sequence[Mapping[str, Any]] = (), title: str = "Results"
    ) -> Self:
        """Adds one table per dataset: metrics in rows, systems in columns, with intervals, the best in bold.

        Args:
            results: the figures.
            differences: entries of ``differences`` in a results document. Those of the first system become columns
                ``system − baseline``, marked if the interval excludes 0.
            title: the section's heading.
        """
        if not results:
            return self
        blocks = [
            {"table": table, "differences": difference_columns(table, differences)} for table in result_tables(results)
        ]
        return self._add("tables", title, blocks=blocks)

    def add_curve(self, rows: Sequence[Mapping[str, Any]], *, title: str = "Training") -> Self:
        """Adds one small chart for each number in the rows of a `metrics.jsonl`, over `step`.

        Args:
            rows: each with ``step`` and any of loss, learning rate, dev metrics, …. Values that are not numbers and
                keys that occur only once are skipped.
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
        collapsed: bool = False,
    ) -> Self:
        """Adds one chart per entry.

        Args:
            charts: chart title → line name → points. A legend is shown if a chart has two or more lines.
            title: the section's heading.
            x_label: the label of the horizontal axis.
            log_x: whether the horizontal axis is logarithmic.
            single_points: whether a line with one point is drawn as a dot; otherwise it is skipped.
            collapsed: whether the reader must open the section.
        """
        shown = []
        for name, lines in charts.items():
            drawn = {line: points for line, points in lines.items() if len(points) > (0 if single_points else 1)}
            svg = line_chart(drawn, x_label=x_label, y_label=name, log_x=log_x)
            if svg:
                shown.append({"title": name, "svg": svg, "names": list(drawn) if len(lines) > 1 else []})
        return self._add("charts", title, charts=shown, collapsed=collapsed) if shown else self

    def add_grid(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str) -> Self:
        """Adds a plain table of texts."""
        return self._add("grid", title, header=header, rows=rows) if rows else self

    def add_histogram(
        self,
        groups: Mapping[str, Iterable[float]],
        *,
        x_label: str = "cosine",
        title: str = "Scores",
        caption: str = "",
    ) -> Self:
        """Adds overlaid histograms, such as the cosines of positives and negatives.

        Args:
            groups: name → values (a list or an array).
            x_label: what the values are.
            title: the section's heading.
            caption: the text above the chart, such as the system's name.
        """
        svg = histogram({name: [float(v) for v in values] for name, values in groups.items()}, x_label=x_label)
        if not svg:
            return self
        return self._add("charts", title, charts=[{"title": caption, "svg": svg, "names": list(groups)}])

    def add_forest(self, estimates: Sequence[Estimate], *, x_label: str, title: str, caption: str = "") -> Self:
        """Adds a forest plot, see `svg.forest`; adds nothing if there are no estimates."""
        svg = forest(estimates, x_label=x_label)
        return self._add("charts", title, charts=[{"title": caption, "svg": svg, "names": []}]) if svg else self

    def add_bars(
        self, rows: Sequence[Bar], *, x_label: str, title: str, caption: str = "", names: Sequence[str] = ()
    ) -> Self:
        """Adds a bar chart, see `svg.bars`; adds nothing if there are no bars.

        Args:
            rows: the bars.
            x_label: what the lengths are.
            title: the section's heading.
            caption: the text above the chart, such as the system's name.
            names: what the first and the second color stand for; empty for no legend.
        """
        svg = bars(rows, x_label=x_label)
        return self._add("charts", title, charts=[{"title": caption, "svg": svg, "names": names}]) if svg else self

    def add_heat(self, pieces: Sequence[tuple[str, float, str]], *, title: str, caption: str = "") -> Self:
        """Adds a text whose background shows a number for each piece.

        Args:
            pieces: (piece, number of 0 or more, what is shown on hover). The pieces together are the text.
            title: the section's heading.
            caption: the text above it.
        """
        highest = max((heat for _, heat, _ in pieces), default=0.0) or 1.0
        shown = [(text, round(max(0.0, heat) / highest, 3), hover) for text, heat, hover in pieces]
        return self._add("heat", title, caption=caption, pieces=shown) if pieces else self

    def add_pictures(self, charts: Mapping[str, str], *, title: str, names: Sequence[str] = (), note: str = "") -> Self:
        """Adds charts that are drawn already: caption → SVG; empty ones are left out.

        Args:
            charts: the charts.
            title: the section's heading.
            names: what the colors stand for; empty for no legend.
            note: a line below the heading; ``""`` for none.
        """
        shown = [{"title": caption, "svg": svg, "names": names} for caption, svg in charts.items() if svg]
        return self._add("charts", title, charts=shown, note=note) if shown else self

    def add_tokens(
        self, panes: Sequence[tuple[str, Sequence[tuple[str, int]]]], *, title: str, caption: str = ""
    ) -> Self:
        """Adds a text whose tokens are colored by a number, with several colorings to choose from.

        Args:
            panes: name → (token, number of 0 or more), one for each coloring.
            title: the section's heading.
            caption: the text above it.
        """
        return self._add("tokens", title, caption=caption, panes=panes) if panes else self

    def add_examples(
        self, queries: Mapping[str, Sequence[RankedQueryLike]], *, title: str = "Examples", each: int = 4
    ) -> Self:
        """Adds example queries: the relevant document, its rank in each system, and each system's first document.

        Args:
            queries: system → one entry per query, in the same order for every system.
            title: the section's heading.
            each: queries per group, see `select_examples`.
        """
        examples = [_shown(example) for example in select_examples(queries, each=each)]
        return self._add("examples", title, examples=examples) if examples else self

    def add_settings(self, settings: Mapping[str, Any], *, title: str) -> Self:
        """Adds a recipe or an environment, collapsed. Nested values are shown as JSON."""
        rows = {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1, default=str)
            for key, value in settings.items()
        }
        return self._add("settings", title, rows=rows) if rows else self

    def render(self) -> str:
        """Returns the page as HTML.

        Raises:
            SpectraError: jinja2 is not installed.
        """
        return _template().render(title=self._title, lead=self._lead, sections=_grouped(self._sections))

    def write(self, path: str | Path) -> Path:
        """Writes the page completely or not at all, and returns its path."""
        page = self.render()
        with atomic_write(path) as file:
            file.write(page)
        return Path(path)

    def _add(self, kind: str, title: str, **content: Any) -> Self:
        self._sections.append({"kind": kind, "title": title, **content})
        return self


def _shown(example: Example) -> dict[str, Any]:
    answers = []
    for system, query in example.by_system:
        first = query.retrieved[0] if query.retrieved else None
        answers.append(
            {
                "system": system,
                "rank": "not in the top 100" if query.rank is None else f"rank {query.rank}",
                "correct": query.rank == 1,
                "score": f"{first.score:.3f}" if first else "",
                "text": _answer(first.text, example.wanted) if first else "(no document)",
            }
        )
    count = len(example.by_system[0][1].wanted)
    return {
        "query": _cut(example.query),
        "label": example.label,
        "wanted": _cut(example.wanted),
        "wanted_label": f"expected (1 of {count})" if count > 1 else "expected",
        "answers": answers,
    }


def _answer(text: str, wanted: str) -> str:
    return "(the expected text)" if text == wanted else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT].rstrip() + " …"


def _grouped(sections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merges consecutive chart sections with the same title, so that their charts are side by side.

    A section with the title of the one before, but of another kind, goes on under its heading.
    """
    grouped: list[dict[str, Any]] = []
    title: str | None = None
    for section in sections:
        last = grouped[-1] if grouped else None
        repeated = section["title"] == title
        if last and section["kind"] == last["kind"] == "charts" and repeated:
            last["charts"] = [*last["charts"], *section["charts"]]
        else:
            title = section["title"]
            grouped.append(section | {"title": ""} if repeated and section["kind"] in _CONTINUED else dict(section))
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
