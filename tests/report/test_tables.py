from __future__ import annotations

from rich.console import Console

from spectra_nsa.core.results import Result
from spectra_nsa.report.markdown import results_table
from spectra_nsa.report.tables import result_tables
from spectra_nsa.report.terminal import difference_lines, terminal_tables


def result(system: str, metric: str, value: float, *, task: str = "retrieval", ci: bool = True) -> Result:
    interval = (value - 0.01, value + 0.01) if ci else None
    return Result(task=task, name="toy", system=system, metric=metric, value=value, ci=interval, n=1200)


RESULTS = [
    result("ours", "ndcg@10", 0.631),
    result("ours", "mrr", 0.5),
    result("bm25", "ndcg@10", 0.397),
    result("bm25", "fpr95", 0.2, ci=False),
    result("ours", "fpr95", 0.1, ci=False),
]


def test_the_best_value_depends_on_the_metric_s_direction() -> None:
    (table,) = result_tables(RESULTS)
    rows = dict(table.rows)
    assert table.metrics == ["ndcg@10", "mrr", "fpr95"]
    ours, bm25 = rows["ours"], rows["bm25"]
    assert ours[0] and ours[0].best and bm25[0] and not bm25[0].best
    assert ours[1] and not ours[1].best  # no other system has it
    assert bm25[1] is None
    assert ours[2] and ours[2].best and bm25[2] and not bm25[2].best


def test_statistics_have_no_best_value() -> None:
    (table,) = result_tables(
        [result(name, "mean_cosine", value, task="statistics") for name, value in (("a", 1), ("b", 2))]
    )
    assert not any(cell.best for _, cells in table.rows for cell in cells if cell)


def test_markdown() -> None:
    text = results_table(RESULTS)
    assert text.splitlines()[2:] == [
        "| system | ndcg@10 | mrr | fpr95 |",
        "|---|---:|---:|---:|",
        "| ours | **0.631**<br><sub>0.621–0.641</sub> | 0.500<br><sub>0.490–0.510</sub> | **0.100** |",
        "| bm25 | 0.397<br><sub>0.387–0.407</sub> | – | 0.200 |",
    ]
    assert results_table([]) == ""


def test_markdown_escapes_names() -> None:
    assert "a\\|b\\_c" in results_table([result("a|b_c", "mrr", 0.5)])


def test_terminal_table_shows_intervals() -> None:
    console = Console(width=120, record=True)
    for table in terminal_tables(RESULTS):
        console.print(table)
    text = console.export_text()
    assert "ndcg@10" in text and "0.631  0.621–0.641" in text


def test_difference_lines_end_with_a_verdict() -> None:
    base = {"task": "sts", "name": "x", "system": "a", "baseline": "b", "metric": "spearman", "value": 0.1}
    assert difference_lines([{**base, "ci": (0.05, 0.15)}])[0].endswith(": ahead")
    assert difference_lines([{**base, "ci": (-0.05, 0.15)}])[0].endswith("no clear difference")
    assert len(difference_lines([{**base, "ci": (-0.2, -0.1)}] * 3)) == 1
