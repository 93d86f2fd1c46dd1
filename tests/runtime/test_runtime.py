"""The runtime has the model's names, types and values, and refuses folders that are not as they were written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spectra_nsa.core.checksums import describe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.runtime import Runtime
from tests.workflows.export.conftest import Exported, exported

__all__ = ["exported"]


def test_it_has_the_names_types_and_values_of_the_model(exported: Exported) -> None:
    runtime, model = Runtime(exported.folder), exported.model
    found = runtime.encode(exported.texts, outputs=runtime.outputs)
    expected = model.encode(exported.texts, outputs=list(runtime.outputs))
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        assert np.abs(found[name].astype(np.float64) - value).max() < 1e-4, name
    for way in ("encode", "encode_query", "encode_document"):
        assert np.abs(getattr(runtime, way)(exported.texts) - getattr(model, way)(exported.texts)).max() < 1e-5, way
    assert np.abs(runtime.encode("open a file") - model.encode("open a file")).max() < 1e-5
    short = runtime.encode(exported.texts, truncate_dim=8)
    assert np.abs(short - model.encode(exported.texts, truncate_dim=8)).max() < 1e-5
    assert runtime.encode([]).shape == (0, 32) and runtime.get_embedding_dimension() == 32
    assert (runtime.max_seq_length, runtime.prompts) == (model.max_seq_length, dict(model.prompts))


def test_a_stream_is_encoded_in_parts(exported: Exported) -> None:
    runtime = Runtime(exported.folder, tokens=64)
    parts = list(runtime.stream(iter(exported.texts), chunk=10))
    assert [len(part) for part in parts] == [10, 10, 5]
    assert np.abs(np.concatenate(parts) - exported.model.encode(exported.texts)).max() < 1e-5


def test_it_loads_no_torch(exported: Exported) -> None:
    code = (
        "import sys; from spectra_nsa.runtime import Runtime; "
        f"vector = Runtime({str(exported.folder)!r}).encode('open a file'); assert vector.shape == (32,); "
        "assert not {'torch', 'transformers', 'sentence_transformers', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_wrong_names_say_what_there_is(exported: Exported) -> None:
    runtime = Runtime(exported.folder, format="onnx-int8")
    with pytest.raises(UsageError, match="Did you mean 'entity'"):
        runtime.encode(["a"], outputs=["entitty"])
    with pytest.raises(UsageError, match="unknown prompt 'querry'"):
        runtime.encode(["a"], prompt_name="querry")
    with pytest.raises(UsageError, match="from 1 to the model's 32"):
        runtime.encode(["a"], truncate_dim=33)
    with pytest.raises(UsageError, match="unknown format 'onx'"):
        Runtime(exported.folder, format="onx")
    with pytest.raises(SpectraError, match="export a model first"):
        Runtime(exported.folder.parent)
    with pytest.raises(SpectraError, match="needs torch"):
        Runtime(exported.folder, format="torch-export")


@pytest.fixture
def copy(exported: Exported, tmp_path: Path) -> Path:
    for name in ("export.json", "tokenizer.json", "onnx/model.onnx"):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(exported.folder / name, tmp_path / "copy" / name)
    return tmp_path / "copy"


def list_again(folder: Path) -> None:
    """Writes size and checksum of the graph into the record, as someone who changes both could."""
    record = json.loads((folder / "export.json").read_text())
    record["files"]["onnx/model.onnx"] = describe(folder / "onnx/model.onnx")
    (folder / "export.json").write_text(json.dumps(record))


def test_vectors_that_are_not_finite_are_refused(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(exported.folder)
    monkeypatch.setattr(runtime.engine, "run", lambda ids, mask, names: {"embedding": np.full((len(ids), 32), np.nan)})
    with pytest.raises(SpectraError, match="hold NaN or infinity"):
        runtime.encode(["open a file"])


def test_small_batches_and_unit_length(exported: Exported) -> None:
    runtime = Runtime(exported.folder, format="onnx-fp16")
    vectors = runtime.encode(exported.texts)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6, "16-bit floats are less exact"
    assert np.abs(runtime.encode(exported.texts, batch_size=3) - vectors).max() < 1e-3
    assert "onnx-fp16" in repr(runtime)


def test_a_damaged_folder_is_refused(copy: Path) -> None:
    Runtime(copy)
    graph = copy / "onnx/model.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:-100])
    with pytest.raises(SpectraError, match="instead of"):
        Runtime(copy)
    graph.write_bytes(content[:-4] + b"abcd")
    with pytest.raises(SpectraError, match="is not the file that was exported"):
        Runtime(copy)
    graph.write_bytes(bytes(len(content)))
    list_again(copy)
    with pytest.raises(SpectraError, match="cannot be opened"):
        Runtime(copy)
    graph.unlink()
    with pytest.raises(SpectraError, match="is missing"):
        Runtime(copy)
    (copy / "export.json").write_text('{"schema": 1, "files": {}}')
    with pytest.raises(SpectraError, match="is damaged"):
        Runtime(copy)


def test_files_outside_the_folder_are_not_opened(copy: Path) -> None:
    graph = copy / "onnx/model.onnx"
    outside = shutil.move(graph, copy.parent / "outside.onnx")
    graph.symlink_to(outside)
    with pytest.raises(SpectraError, match="link to a file outside"):
        Runtime(copy)
    record = json.loads((copy / "export.json").read_text())
    record["formats"]["onnx"]["file"] = "../outside.onnx"
    (copy / "export.json").write_text(json.dumps(record))
    with pytest.raises(SpectraError, match="does not list"):
        Runtime(copy)
    record["files"]["../outside.onnx"] = record["files"]["onnx/model.onnx"]
    (copy / "export.json").write_text(json.dumps(record))
    with pytest.raises(SpectraError, match="not a file inside its folder"):
        Runtime(copy)


def test_weights_elsewhere_are_not_read(copy: Path) -> None:
    import onnx

    model = onnx.load(copy / "onnx/model.onnx")
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret")
    (copy / "onnx/model.onnx").write_bytes(model.SerializeToString())
    list_again(copy)
    with pytest.raises(SpectraError, match=r"would read weights from '\.\./secret'"):
        Runtime(copy)
