"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.results import Result
from spectra_nsa.report.tables import ResultTable, result_tables

if TYPE_CHECKING:
    from rich.table import Table


def terminal_tables(results: Sequence[Result]) -> list[Table]:
    """Returns one table per dataset: metrics in rows, systems in columns, the best in bold."""
    return [_table(table) for table in result_tables(results)]


def _table(table: ResultTable) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = Table(title=Text(f"{table.title}  (n = {table.n:,})"), box=box.SIMPLE_HEAD, title_justify="left")
    out.add_column("metric")
    for system, _ in table.rows:
        out.add_column(Text(system), justify="right")
    for at, metric in enumerate(table.metrics):
        cells: list[Text] = []
        for _, row in table.rows:
            cell = row[at]
            text = Text(cell.text if cell else "–", style="bold" if cell and cell.best else "")
            if cell and cell.interval:
                text.append(f"  {cell.interval}", style="dim not bold")
            cells.append(text)
        out.add_row(metric, *cells)
    return out


def difference_lines(differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one line for the first metric of each comparison: the difference, its interval and a verdict.

    Args:
        differences: entries of ``differences`` in a results document.
    """
    lines: dict[tuple[str, ...], str] = {}
    for entry in differences:
        low, high = entry["ci"]
        verdict = "ahead" if low > 0 else "behind" if high < 0 else "no clear difference"
        lines.setdefault(
            (entry["task"], entry["name"], entry["system"]),
            f"{entry['task']} · {entry['name']}: {entry['system']} − {entry['baseline']} in {entry['metric']} "
            f"{entry['value']:+.3f} ({low:+.3f} to {high:+.3f}): {verdict}",
        )
    return list(lines.values())
