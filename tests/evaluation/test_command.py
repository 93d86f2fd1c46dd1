from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from spectra_nsa.cli import eval as eval_module
from spectra_nsa.cli.eval import evaluate_command
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.evaluation.tasks import TASK_KINDS
from tests.builders import bert_folder, tiny_masked_lm

app = typer.Typer()
app.command()(evaluate_command)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [{"anchor": f"find item{at}", "positive": f"item{at} is here"} for at in range(20)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_files_and_terminal_output(pairs: Path, tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("r.json", "r.md", "r.html")]
    options = ["--json", names[0], "--markdown", names[1], "--html", names[2]]
    run = CliRunner().invoke(app, ["bm25", "--task", f"pairs={pairs}", *options], catch_exceptions=False)
    assert run.exit_code == 0 and "ndcg@10" in run.stdout
    document = json.loads(Path(names[0]).read_text())
    assert document["model"] == "bm25" and document["results"][0]["system"] == "bm25"
    assert "| bm25 |" in Path(names[1]).read_text()
    assert "<h1>Evaluation</h1>" in Path(names[2]).read_text()


def test_json_is_all_of_the_standard_output(pairs: Path) -> None:
    run = CliRunner().invoke(app, ["bm25", "-t", f"pairs={pairs}", "--json", "-"], catch_exceptions=False)
    assert json.loads(run.stdout)["schema"] == 1


def test_qrels_without_header_with_ids_of_digits_and_negative_grades(tmp_path: Path) -> None:
    corpus = [("000123", "red cat"), ("123", "red cat food for cats"), ("0", "a dog")]
    texts = [json.dumps({"_id": key, "text": text}) for key, text in corpus]
    (tmp_path / "corpus.jsonl").write_text("\n".join(texts))
    queries = [{"_id": "007", "text": "red cat"}, {"_id": "7", "text": "dog"}]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("007\t000123\t-1\n007\t123\t2\n7\t0\t1\n")
    task = ["bm25", "-t", f"retrieval={tmp_path}", "--json", "-"]
    run = CliRunner().invoke(app, task, catch_exceptions=False)
    results = {row["metric"]: row for row in json.loads(run.stdout)["results"]}
    assert results["ndcg@10"]["n"] == 2
    assert results["mrr"]["value"] == 0.75, "000123 is first for 007, and judged worse than not relevant"
    assert results["ndcg@10"]["value"] == pytest.approx((1 / np.log2(3) + 1) / 2)


def test_wrong_usage_is_refused(pairs: Path, tmp_path: Path) -> None:
    for arguments in (["bm25"], ["bm25", "-t", "sst=x"], ["bm25", "-t", f"pairs={pairs}", "--html", str(tmp_path)]):
        with pytest.raises(UsageError):
            CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_help_names_every_kind_of_task() -> None:
    assert [part.split("=")[0] for part in eval_module._KINDS.split(", ")] == list(TASK_KINDS)


def test_limit_applies_to_each_source(pairs: Path) -> None:
    run = CliRunner().invoke(app, ["bm25", "-t", f"pairs={pairs}", "--limit", "5", "--json", "-"])
    assert json.loads(run.stdout)["results"][0]["n"] == 5


def test_columns_name_the_roles(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text(
        "headline,story\n" + "".join(f"find item{at},item{at} is here\n" for at in range(9))
    )
    task = ["bm25", "-t", f"pairs={tmp_path / 'odd.csv'}", "--json", "-"]
    with pytest.raises(SpectraError, match="--columns ROLE=COLUMN"):
        CliRunner().invoke(app, task, catch_exceptions=False)
    named = CliRunner().invoke(app, [*task, "--columns", "anchor=headline,positive=story"], catch_exceptions=False)
    assert json.loads(named.stdout)["results"][0]["n"] == 9


def test_precision_changes_the_figures_slightly(pairs: Path, tmp_path: Path) -> None:
    model = bert_folder(tmp_path)
    values = {}
    for precision in ("fp32", "bf16"):
        arguments = [str(model), "-t", f"statistics={pairs}", "--precision", precision, "--json", "-"]
        run = CliRunner().invoke(app, arguments, catch_exceptions=False)
        document = json.loads(run.stdout)
        assert document["precision"] == precision
        values[precision] = [row["value"] for row in document["results"]]
    assert values["bf16"] == pytest.approx(values["fp32"], rel=0.1, abs=0.05)
    assert values["bf16"] != values["fp32"]  # the precision had an effect


@pytest.mark.parametrize("options", [["--dim", "8"], ["--query-active", "2"]])
def test_the_same_model_as_baseline_shows_what_a_limit_costs(pairs: Path, tmp_path: Path, options: list[str]) -> None:
    if options[0] == "--dim":
        folder = bert_folder(tmp_path)
    else:
        from spectra_nsa.models.sparse.build import splade_from

        folder = tmp_path / "sparse" / "model"
        splade_from(tiny_masked_lm(tmp_path / "start"), max_length=32).save_pretrained(str(folder))
    words = [str(folder), "-b", str(folder), "-t", f"pairs={pairs}", "--json", "-"]
    run = CliRunner().invoke(app, [*words, *options], catch_exceptions=False)
    names = list(dict.fromkeys(row["system"] for row in json.loads(run.stdout)["results"]))
    assert len(names) == 2 and names[0] == f"{names[1]}@{'8' if options[0] == '--dim' else '2,all'}"
    hybrid = [*words, *options, "-b", f"hybrid:{folder}+bm25"]  # of the whole model
    assert f"hybrid:{names[1]}+bm25" in CliRunner().invoke(app, hybrid, catch_exceptions=False).stdout
    with pytest.raises(UsageError, match="given twice"):
        CliRunner().invoke(app, words, catch_exceptions=False)
