"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectra_nsa.core.results import Result
from spectra_nsa.report.format import escaped
from spectra_nsa.report.tables import DifferenceCell, FigureCell, ResultTable, difference_columns, result_tables


def results_table(results: Sequence[Result], differences: Sequence[Mapping[str, Any]] = ()) -> str:
    """Returns one Markdown table per dataset: metrics in rows, systems in columns, intervals below, the best in bold.

    The text ends with a line break; it is ``""`` without results.

    Args:
        results: the figures.
        differences: entries of ``differences`` in a results document. Those of the first system become columns.
    """
    return "\n".join(_markdown(table, differences) for table in result_tables(results))


def _markdown(table: ResultTable, differences: Sequence[Mapping[str, Any]]) -> str:
    columns = difference_columns(table, differences)
    names = [*(system for system, _ in table.rows), *columns]
    lines = [
        f"**{escaped(table.title)}** (n = {table.n:,}; 95 % intervals below the figures)",
        "",
        "| metric | " + " | ".join(escaped(name) for name in names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for at, metric in enumerate(table.metrics):
        cells = [*(cells[at] for _, cells in table.rows), *(cells.get(metric) for cells in columns.values())]
        lines.append(f"| {escaped(metric)} | " + " | ".join(_show(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _show(cell: FigureCell | DifferenceCell | None) -> str:
    if cell is None:
        return "–"
    figure = f"**{cell.text}**" if isinstance(cell, FigureCell) and cell.best else cell.text
    return f"{figure}<br><sub>{cell.interval}</sub>" if cell.interval else figure
