"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from spectra_nsa.core.results import Result
from spectra_nsa.report.tables import FigureCell, ResultTable, result_tables


def results_table(results: Sequence[Result]) -> str:
    """Returns one Markdown table per dataset: systems in rows, metrics in columns, intervals below, the best in bold.

    The text ends with a line break; it is ``""`` without results.
    """
    return "\n".join(_markdown(table) for table in result_tables(results))


def _markdown(table: ResultTable) -> str:
    lines = [
        f"**{_escape(table.title)}** (n = {table.n:,}; 95 % intervals below the figures)",
        "",
        "| system | " + " | ".join(_escape(metric) for metric in table.metrics) + " |",
        "|---|" + "---:|" * len(table.metrics),
    ]
    for system, cells in table.rows:
        lines.append(f"| {_escape(system)} | " + " | ".join(_show(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _show(cell: FigureCell | None) -> str:
    if cell is None:
        return "–"
    figure = f"**{cell.text}**" if cell.best else cell.text
    return f"{figure}<br><sub>{cell.interval}</sub>" if cell.interval else figure


def _escape(text: str) -> str:
    for sign in ("\\", "|", "*", "_", "<", "`"):
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())
