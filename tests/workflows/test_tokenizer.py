"""Training of a tokenizer on sources: the split, the folder, the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.models.fresh import load_tokenizer
from spectra_nsa.tokens.train import TokenizerSpec
from spectra_nsa.workflows import tokenizer as workflow
from spectra_nsa.workflows.tokenizer import report_on, train_tokenizer_on
from tests.builders import WORDS


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{a} the {b} and {c}\n" for a in WORDS for b in WORDS for c in WORDS[:3]))
    return path


def quiet(line: str) -> None:
    pass


def test_two_percent_are_held_out_and_never_trained_on(corpus: Path, tmp_path: Path) -> None:
    lines = corpus.read_text().splitlines()
    marked = [f"{line} {'qz' * 3}" for line in lines if workflow.zlib.crc32(f"{line} {'qz' * 3}".encode()) % 50 == 0]
    assert marked
    corpus.write_text("\n".join([*lines, *marked, *marked]) + "\n")
    facts = train_tokenizer_on([str(corpus)], TokenizerSpec(kind="word", vocab_size=100), tmp_path / "t", say=quiet)
    assert "qzqzqz" not in load_tokenizer(str(tmp_path / "t")).get_vocab()
    held = [line for line in [*lines, *marked, *marked] if workflow.zlib.crc32(line.encode()) % 50 == 0]
    assert facts["held_out"] == len(held) > 2 * len(marked)


def test_results_cover_the_new_tokenizer_and_berts(
    corpus: Path, tmp_path: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "MAX_TEXTS", 7)
    spec = TokenizerSpec(vocab_size=5_000)
    (tmp_path / "unseen.jsonl").write_text("".join(json.dumps({"text": f"read {word}"}) + "\n" for word in WORDS))
    held_out = str(tmp_path / "unseen.jsonl")
    facts = train_tokenizer_on([str(corpus)], spec, tmp_path / "t", held_out=held_out, limit=300, say=quiet)
    assert facts["pieces"] == len(load_tokenizer(str(tmp_path / "t"))) < facts["asked"] == 5_000
    assert facts["lossless"] and facts["held_out"] == 7
    table = {(one.system, one.metric): one for one in facts["results"]}
    assert {system for system, _ in table} == {"t", workflow.BASELINE}
    assert table["t", "round_trip"].value == 1.0 and table["t", "pieces"].value == facts["pieces"]
    assert table[workflow.BASELINE, "pieces"].value == 30_522
    assert all(one.n == 7 and one.name == held_out for one in facts["results"])
    again = report_on([str(tmp_path / "t")], held_out, say=quiet)["results"]
    steady = [one for one in again if one.metric != "million_characters_per_second"]
    assert [one.value for one in steady] == [
        one.value for one in facts["results"] if one.metric != "million_characters_per_second"
    ]


def test_skipped_rows_are_reported_and_returned(corpus: Path, tmp_path: Path) -> None:
    broken, odd = tmp_path / "broken.txt", tmp_path / "odd.csv"
    broken.write_bytes(b"open the file\n\xff\n")
    odd.write_text("text,nr\nread open,1\n,2\n")
    spec, said = TokenizerSpec(kind="word", vocab_size=50), []
    facts = train_tokenizer_on([str(corpus), str(broken)], spec, tmp_path / "t", held_out=str(odd), say=said.append)
    report = report_on([facts["folder"]], str(odd), say=said.append)
    assert (facts["quarantined"], report["quarantined"]) == (2, 1)
    assert [(one["file"], one["line"]) for one in facts["problems"]] == [(str(broken), 2), (str(odd), 3)]
    notes = [*facts["notes"], *report["notes"]]
    assert len(notes) == 3 and [f"note: {note}" for note in notes] == [line for line in said if "quarantined" in line]
    assert f"the first is {odd}:3, column 'text': empty" in report["notes"][0]


def test_columns_apply_to_the_held_out_source_too(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("story,nr\nread open,1\n")
    spec, odd = TokenizerSpec(kind="word", vocab_size=50), str(tmp_path / "odd.csv")
    sources = [str(corpus)]
    facts = train_tokenizer_on(sources, spec, tmp_path / "t", held_out=odd, columns={"text": "story"}, say=quiet)
    assert facts["held_out"] == 1 and report_on([facts["folder"]], odd, columns={"text": "story"}, say=quiet)["results"]
    with pytest.raises(SpectraError, match="--columns"):
        train_tokenizer_on(sources, spec, tmp_path / "u", columns={"text": "story"}, say=quiet)
    assert not (tmp_path / "u").exists()


def test_without_berts_the_report_says_so(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectra_nsa.models import fresh

    monkeypatch.setattr(fresh, "STARTER_PACKAGE", "no_such_package")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    said: list[str] = []
    spec = TokenizerSpec(kind="word", vocab_size=50)
    facts = train_tokenizer_on([str(corpus)], spec, tmp_path / "t", say=said.append)
    assert {one.system for one in facts["results"]} == {"t"}
    assert any("not compared with bert-base-uncased" in line for line in said)


def test_too_few_texts_to_hold_any_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("open the file\n")
    spec = TokenizerSpec(kind="word", vocab_size=50, min_frequency=1)
    facts = train_tokenizer_on([str(tmp_path / "a.txt")], spec, tmp_path / "t", say=quiet)
    assert (facts["pieces"], facts["held_out"], facts["results"]) == (8, 0, [])


def test_a_failure_writes_nothing_and_an_occupied_folder_is_refused_first(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SpectraError, match="too few"):
        train_tokenizer_on([str(corpus)], TokenizerSpec(vocab_size=100), tmp_path / "t", say=quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.txt"]
    with pytest.raises(UsageError, match="a folder with other files"):
        train_tokenizer_on(["gone.txt"], TokenizerSpec(), tmp_path, say=quiet)
