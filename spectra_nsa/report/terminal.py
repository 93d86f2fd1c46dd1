"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.results import Result
from spectra_nsa.report.tables import ResultTable, model_differences, result_tables

if TYPE_CHECKING:
    from rich.table import Table

FEW = 10  # units below which a bootstrap interval says little; with equal values it has no width at all


def terminal_tables(results: Sequence[Result], *, width: int = 80) -> list[Table]:
    """Returns one table per dataset: metrics in rows, systems in columns, the best in bold.

    An interval is beside its figure if the table then fits, and below it otherwise.

    Args:
        results: the figures.
        width: the terminal's columns.
    """
    from rich.console import Console

    wide = Console(width=1000)
    tables = []
    for table in result_tables(results):
        beside = _table(table, "  ")
        tables.append(beside if wide.measure(beside).maximum <= width else _table(table, "\n"))
    return tables


def _table(table: ResultTable, separator: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    few = ": too few for intervals to mean much" if table.n < FEW and _has_intervals(table) else ""
    out = Table(title=Text(f"{table.title}  (n = {table.n:,}{few})"), box=box.SIMPLE_HEAD, title_justify="left")
    out.add_column("metric")
    for system, _ in table.rows:
        out.add_column(Text(system), justify="right", overflow="fold")
    for at, metric in enumerate(table.metrics):
        cells: list[Text] = []
        for _, row in table.rows:
            cell = row[at]
            text = Text(cell.text if cell else "–", style="bold" if cell and cell.best else "")
            if cell and cell.interval:
                text.append(separator + cell.interval, style="dim not bold")
            cells.append(text)
        out.add_row(metric, *cells)
    return out


def _has_intervals(table: ResultTable) -> bool:
    return any(cell is not None and cell.interval for _, row in table.rows for cell in row)


def difference_lines(differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one line for the first metric of each baseline: the difference, its interval and a verdict.

    Args:
        differences: entries of ``differences`` in a results document.
    """
    lines: dict[tuple[str, ...], str] = {}
    for entry in model_differences(differences):
        low, high = entry["ci"]
        verdict = "ahead" if low > 0 else "behind" if high < 0 else "no clear difference"
        lines.setdefault(
            (entry["task"], entry["name"], entry["baseline"]),
            f"{entry['task']} · {entry['name']}: {entry['system']} − {entry['baseline']} in {entry['metric']} "
            f"{entry['value']:+.3f} ({low:+.3f} to {high:+.3f}): {verdict}",
        )
    return list(lines.values())
