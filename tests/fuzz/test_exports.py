"""Exported folders and encoded corpora: whatever is changed in them, they open, or an error of ours says why not."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_nsa.core.checksums import describe
from tests.fuzz.law import cases, obeys
from tests.fuzz.mutations import changed_bytes, changed_json_file

RECORD = "export.json"
TEXTS = ["open a file", "x"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few kilobytes, exported to ONNX."""
    from spectra_nsa.models.warm_start import warm_start
    from spectra_nsa.workflows.export.run import export_model
    from spectra_nsa.workflows.export.subject import Wanted
    from tests.builders import WORDS, bert_folder

    folder = tmp_path_factory.mktemp("exports")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = warm_start(bert_folder(folder, **shape, max_position_embeddings=16))
    model.save_pretrained(str(folder / "saved"))
    pairs = folder / "pairs.jsonl"
    lines = [json.dumps({"anchor": f"{a} {b}", "positive": f"{b} {a}"}) for a, b in itertools.pairwise(WORDS)]
    pairs.write_text("\n".join(lines))
    names = ["embedding", "semantic"]
    export_model(
        str(folder / "saved"), ["onnx"], output=folder / "exported", wanted=Wanted(outputs=names), texts=str(pairs),
        least_cosine=0.0,
    )  # fmt: skip
    return folder / "exported"


@pytest.fixture(scope="module")
def corpus(exported: Path) -> Path:
    from spectra_nsa.workflows.corpus.run import encode_corpus, plan_corpus

    (exported.parent / "docs.txt").write_text("open a file\nclose it\nread\n")
    job = plan_corpus(
        str(exported.parent / "saved"), str(exported.parent / "docs.txt"), precision="fp32", shard_rows=2,
        outputs=["embedding", "semantic"],
    )  # fmt: skip
    encode_corpus(job, exported.parent / "corpus")
    return exported.parent / "corpus"


def _changed(folder: Path, data: st.DataObject, names: tuple[str, ...]) -> Path:
    """Returns a copy of a folder with one of its files changed."""
    copy = folder.with_name(f"{folder.name}-copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    name = data.draw(st.sampled_from(names))
    valid = (folder / name).read_bytes()
    change = changed_json_file(json.loads(valid)) if name.endswith(".json") else changed_bytes(valid)
    (copy / name).write_bytes(data.draw(change))
    if name != RECORD and (copy / RECORD).is_file() and data.draw(st.booleans()):
        record = json.loads((copy / RECORD).read_text())  # as someone who changes both could
        record["files"][name] = describe(copy / name)
        (copy / RECORD).write_text(json.dumps(record))
    return copy


@cases(60, share=0.3)
@given(data=st.data())
def test_an_exported_folder_is_opened(exported: Path, data: st.DataObject) -> None:
    from spectra_nsa.runtime import Runtime

    folder = _changed(exported, data, ("export.json", "tokenizer.json", "onnx/model.onnx"))
    encoder = obeys(lambda: Runtime(folder, threads=1))
    if encoder is not None:
        obeys(lambda: encoder.encode(TEXTS))


@cases(60, share=0.3)
@given(data=st.data())
def test_an_encoded_corpus_is_read(corpus: Path, data: st.DataObject) -> None:
    from spectra_nsa.workflows.corpus.files import read_corpus

    folder = _changed(corpus, data, ("corpus.json", "part-00000.json", "part-00000.npz"))
    obeys(lambda: list(read_corpus(folder, "semantic")))


def test_the_unchanged_folders_open(exported: Path, corpus: Path) -> None:
    """The changes above start from what is valid."""
    from spectra_nsa.runtime import Runtime
    from spectra_nsa.workflows.corpus.files import read_corpus

    assert Runtime(exported, threads=1).encode(TEXTS).shape == (2, 8)
    assert [len(rows) for rows in read_corpus(corpus)] == [2, 1]
