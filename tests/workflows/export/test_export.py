"""Exports agree with the model, say how far, and are refused if they do not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import spectra_nsa as sp
from spectra_nsa.cli.main import app
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.export import onnx_weights
from spectra_nsa.export.formats import FORMATS
from spectra_nsa.heads.kinds import outputs_of
from spectra_nsa.runtime import Runtime
from spectra_nsa.workflows.export.beside import export_beside
from spectra_nsa.workflows.export.run import export_model
from spectra_nsa.workflows.export.subject import Wanted
from spectra_nsa.workflows.export.write import drop_stale
from spectra_nsa.workflows.searcher import Documents, Searcher
from tests.workflows.export.conftest import Exported


def test_every_output_is_in_the_graph_and_close(exported: Exported) -> None:
    for name, facts in exported.document["formats"].items():
        assert set(facts["outputs"]) == set(outputs_of(exported.model.spec)), name
        checks = facts["checks"]
        exact = name in ("onnx", "torch-export")
        for output, figures in checks["outputs"].items():
            if "cosine_min" in figures:
                assert figures["cosine_min"] > (1 - 1e-6 if exact else FORMATS[name].cosine), (name, output)
            elif exact:
                assert figures.get("equal", 1) == 1 and figures.get("largest_difference", 0) < 1e-4, (name, output)
        assert checks["ndcg@10"]["pairs"] == 40 and checks["ndcg@10"]["model"] > 0.5
        assert checks["alone"]["cosine_min"] > 0.9999
    assert json.loads((exported.folder / "export.json").read_text())["formats"].keys() == set(
        exported.document["formats"]
    )


def test_files_have_the_names_that_other_tools_look_for(exported: Exported) -> None:
    for name in ("onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model_fp16.onnx", "torch/model.pt2"):
        assert (exported.folder / name).is_file()
    assert not [path for path in exported.folder.iterdir() if path.name.startswith(".export")]
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.folder / "onnx/model.onnx")
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask"]
    names = [value.name for value in session.get_outputs()]
    assert names[:3] == ["last_hidden_state", "sentence_embedding", "semantic"] and "embedding" not in names
    sizes = {name: (exported.folder / FORMATS[name].file).stat().st_size for name in ("onnx", "onnx-fp16")}
    assert sizes["onnx-fp16"] < 0.9 * sizes["onnx"]


def test_a_program_of_torch_needs_nothing_of_ours(exported: Exported) -> None:
    program = torch.export.load(exported.folder / "torch/model.pt2").module()
    ids = torch.tensor([[2, 5, 9, 3], [2, 7, 3, 0], [2, 3, 0, 0]])
    states, embedding, *_ = program(ids, (ids > 0).long())
    with torch.no_grad():
        expected = exported.model.spectra(ids, (ids > 0).long())["embedding"]
    assert states.shape == (3, 4, 32) and torch.allclose(embedding, expected, atol=1e-6)


def test_fewer_dimensions_and_a_fixed_length(exported: Exported, tmp_path: Path) -> None:
    document = export_model(
        str(exported.folder), ["onnx"], output=tmp_path / "o", texts=str(exported.pairs),
        wanted=Wanted(dim=8, length=16, outputs=["entity"]),
    )  # fmt: skip
    assert document["formats"]["onnx"]["outputs"] == {"embedding": 8, "entity": 16}
    runtime = Runtime(tmp_path / "o")
    short = [" ".join(text.split()[:10]) for text in exported.texts]
    expected = exported.model.encode(short, truncate_dim=8)
    assert np.abs(runtime.encode(short) - expected).max() < 1e-5
    assert runtime.encode(exported.texts).shape == (25, 8), "longer texts are cut"


def test_other_formats_of_a_plain_model(make_bert: Callable[..., Path], tmp_path: Path, exported: Exported) -> None:
    pytest.importorskip("openvino")
    document = export_model(
        str(make_bert()),
        ["openvino", "torchscript", "onnx-int8-fast", "onnx-int8-static"],
        output=tmp_path / "o",
        texts=str(exported.pairs),
    )
    assert len(document["notes"]) == 2, "codes and anomaly score are not fitted"
    for facts in document["formats"].values():
        assert (tmp_path / "o" / facts["file"]).is_file() and "fast" not in facts["outputs"]
    assert (tmp_path / "o/config.json").is_file() and (tmp_path / "o/tokenizer.json").is_file()
    runtime, model = Runtime(tmp_path / "o", format="openvino"), sp.warm_start(make_bert())
    assert np.abs(runtime.encode(exported.texts) - model.encode(exported.texts)).max() < 1e-5
    half = Runtime(tmp_path / "o", format="openvino", precision="bf16").encode(exported.texts)
    assert (half * runtime.encode(exported.texts)).sum(1).min() > 0.999
    with pytest.raises(UsageError, match="precision bf16 is for the format openvino"):
        Runtime(tmp_path / "o", format="onnx-int8-fast", precision="bf16")


def test_a_table_in_8_bits_is_looked_up_and_scaled() -> None:
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    table = np.random.default_rng(0).normal(size=(1200, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"], axis=0)],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(table, "table")],
    )
    model = onnx_weights._small_tables(helper.make_model(graph))
    ids = np.array([0, 7, 1199])
    (rows,) = ReferenceEvaluator(model).run(None, {"ids": ids})
    assert np.abs(rows - table[ids]).max() < np.abs(table).max() / 127 and not np.array_equal(rows, table[ids])
    assert "table" not in {value.name for value in model.graph.initializer}


@pytest.mark.parametrize(
    ("formats", "options", "message"),
    [
        (["onx"], {}, "Did you mean 'onnx'"),
        (["sentence-transformers", "onnx"], {}, "a folder of another kind"),
        (["onnx"], {"length": 500}, "--seq-len must be from 3 to the model's"),
        (["onnx"], {"dim": 99}, "truncate_dim must be from 1"),
        (["onnx"], {"outputs": ["entitty"]}, "Did you mean 'entity'"),
        (["onnx"], {"strongest": 9}, "--top-k is for sparse encoders"),
    ],
)
def test_what_does_not_fit_is_refused(
    exported: Exported, formats: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export_model(str(exported.folder), formats, texts=str(exported.pairs), wanted=Wanted(**options))


def test_an_unfitted_score_and_a_folder_of_others(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the folder of the export with --output"):
        export_model(str(make_bert()), ["onnx"])
    with pytest.raises(SpectraError, match="the anomaly score of the model is not fitted"):
        export_model(str(make_bert()), ["onnx"], output=tmp_path / "o", wanted=Wanted(outputs=["is_ood"]))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="a folder with other files"):
        export_model(str(make_bert()), ["onnx"], output=tmp_path / "mine")


def test_commands_on_few_texts_use_the_export_beside_the_model(exported: Exported, tmp_path: Path) -> None:
    words = ["encode", str(exported.folder), "-t", "open a file", "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "using the export" in done.stderr and "torch" not in done.stderr
    found = json.loads(done.stdout)
    assert found["precision"] == "fp32"
    wanted = exported.model.encode(["open a file"], precision="fp32")
    assert np.abs(np.array(found["outputs"]["embedding"]) - wanted).max() < 1e-5
    done = CliRunner().invoke(app, ["similarity", str(exported.folder), "open a file", "open a file"])
    assert done.stdout == "1.0000\n" and "using the export" in done.stderr
    for more in (["--precision", "fp32"], ["--batch", "4"]):  # of the model
        done = CliRunner().invoke(app, [*words, *more])
        assert "using the export" not in done.stderr
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    words[1] = str(copy)
    assert "using the export" in CliRunner().invoke(app, words).stderr
    changed = json.loads((copy / "config_sentence_transformers.json").read_text())
    changed["prompts"]["query"] = "another "
    (copy / "config_sentence_transformers.json").write_text(json.dumps(changed))
    assert "using the export" not in CliRunner().invoke(app, words).stderr, "it is of other prompts"


def test_an_export_that_does_not_fit_is_not_used(exported: Exported, tmp_path: Path) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    words = ["encode", str(copy), "-t", "open a file", "--json"]
    export_model(str(copy), ["onnx"], texts=str(exported.pairs), wanted=Wanted(dim=8))
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "using the export" not in done.stderr and json.loads(done.stdout)["shapes"] == {"embedding": [1, 32]}
    done = CliRunner().invoke(app, [*words, "--dim", "8"], catch_exceptions=False)
    assert "using the export" in done.stderr and json.loads(done.stdout)["shapes"] == {"embedding": [1, 8]}
    (copy / "onnx/model.onnx").write_bytes(b"damaged")
    done = CliRunner().invoke(app, [*words, "--dim", "8"], catch_exceptions=False)
    assert "is not used" in done.stderr and json.loads(done.stdout)["shapes"] == {"embedding": [1, 8]}
    alone = tmp_path / "alone"
    shutil.copytree(exported.folder, alone, ignore=shutil.ignore_patterns("model.safetensors"))
    done = CliRunner().invoke(app, ["similarity", str(alone), "open a file", "open a file"], catch_exceptions=False)
    assert done.stdout == "1.0000\n"
    with pytest.raises(SpectraError, match="exported graphs without the model"):
        CliRunner().invoke(app, ["eval", str(alone), "--task", f"pairs={exported.pairs}"], catch_exceptions=False)


def test_exports_of_other_weights_are_removed_and_of_other_models_refused(
    make_bert: Callable[..., Path], tmp_path: Path, exported: Exported
) -> None:
    model, pairs = sp.warm_start(make_bert(num_hidden_layers=1)), str(exported.pairs)
    for target in (tmp_path / "m", tmp_path / "o"):
        model.save_pretrained(str(tmp_path / "m"))
        export_model(str(tmp_path / "m"), ["onnx"], output=target, texts=pairs)
        assert (export_beside(tmp_path / "m", ["embedding"]) is not None) == (target == tmp_path / "m")
        limit = Runtime(target).max_seq_length
        export_model(
            str(tmp_path / "m"),
            ["onnx-fp16"],
            output=target,
            texts=pairs,
            wanted=Wanted(length=8, outputs=["semantic"]),
        )
        assert Runtime(target, format="onnx").max_seq_length == limit > 8, "each format has its own length"
        (target / "onnx/model.onnx").write_bytes(b"damaged")
        torch.nn.init.normal_(next(model.spectra.parameters()))
        model.save_pretrained(str(tmp_path / "m"))
        document = export_model(str(tmp_path / "m"), ["onnx-int8-fast"], output=target, texts=pairs)
        assert "removed exports of other weights: onnx, onnx-fp16" in document["notes"]
        assert [path.name for path in (target / "onnx").iterdir()] == ["model_int8.onnx"]
        assert (target / "tokenizer.json").is_file() and Runtime(target).encode(["open"]).shape == (1, 32)
    with pytest.raises(UsageError, match="has exports of"):
        export_model(str(exported.folder), ["onnx"], output=tmp_path / "o", texts=pairs)


def test_only_files_of_exports_are_removed(exported: Exported, tmp_path: Path) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    (tmp_path / "mine.onnx").write_bytes(b"mine")
    record = json.loads((copy / "export.json").read_text()) | {"model_sha256": "of other weights"}
    record["formats"]["onnx"]["file"] = "../mine.onnx"
    (copy / "export.json").write_text(json.dumps(record))
    assert set(drop_stale(copy, "of these")) == set(record["formats"])
    assert (tmp_path / "mine.onnx").is_file() and (copy / "tokenizer.json").is_file(), "they are not the exports'"
    assert sp.load(copy) is not None and not list((copy / "onnx").iterdir())


def test_a_damaged_file_stays_damaged_in_the_record(exported: Exported, tmp_path: Path) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    content = (copy / "onnx/model.onnx").read_bytes()
    (copy / "onnx/model.onnx").write_bytes(content[:-4] + b"abcd")
    export_model(str(copy), ["onnx-fp16"], texts=str(exported.pairs), wanted=Wanted(outputs=["semantic"]))
    with pytest.raises(SpectraError, match="is not the file that was exported"):
        Runtime(copy, format="onnx")


def test_a_format_that_is_too_far_off_is_refused_alone(exported: Exported, tmp_path: Path) -> None:
    words = ["export", str(exported.folder), "--to", "onnx-int4,onnx", "--output", str(tmp_path / "o"), "--json"]
    done = CliRunner().invoke(app, [*words, "--texts", str(exported.pairs), "--least-cosine", "0.999999"])
    document = json.loads(done.stdout)
    assert done.exit_code == 1 and list(document["formats"]) == ["onnx"]
    figure = r"onnx-int4 is refused: the cosine of \w+ to the model's is 0\.\d+"
    assert re.match(figure, document["refused"]["onnx-int4"])
    assert [path.name for path in (tmp_path / "o/onnx").iterdir()] == ["model.onnx"], "nothing is left of it"


def test_searches_use_the_export_once_documents_are_encoded(exported: Exported, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(dict.fromkeys(exported.texts)), encoding="utf-8")
    for options in ([], ["--bits", "64"]):
        words = ["search", str(exported.folder), "open the file", "--corpus", str(corpus), "--json", *options]
        first, second = (CliRunner().invoke(app, words, catch_exceptions=False) for _ in range(2))
        assert "using the export" not in first.stderr and "using the export" in second.stderr
        before, after = (json.loads(done.stdout)["hits"] for done in (first, second))
        assert [hit["text"] for hit in before] == [hit["text"] for hit in after]
        assert np.allclose([hit["score"] for hit in before], [hit["score"] for hit in after], atol=1e-4)


def test_an_export_leaves_an_index_of_its_model_as_it_is(exported: Exported, tmp_path: Path) -> None:
    plain = tmp_path / "model"
    shutil.copytree(exported.folder, plain, ignore=shutil.ignore_patterns("onnx", "torch", "export.json"))
    texts = list(dict.fromkeys(exported.texts))
    documents = Documents(ids=[str(number) for number in range(len(texts))], texts=texts)
    searcher = Searcher.build(tmp_path / "index", documents, [str(plain)], kind="hybrid")
    before = [hit.id for hit in searcher.hits("open the file")]
    shutil.copytree(exported.folder, plain, dirs_exist_ok=True)
    script = (
        "import sys; from spectra_nsa.workflows.searcher import Searcher\n"
        "print(*(hit.id for hit in Searcher.load(sys.argv[1]).hits('open the file')))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "index")], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == before and "using the export" in done.stderr


def test_a_report_shows_what_was_measured(exported: Exported) -> None:
    done = CliRunner().invoke(app, ["export", str(exported.folder), "--report", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["formats"].keys() == exported.document["formats"].keys()
    assert "onnx-int8" in CliRunner().invoke(app, ["export", str(exported.folder), "--report"]).stdout
    assert CliRunner().invoke(app, ["export", str(exported.folder.parent), "--report"]).exit_code == 1
