"""A corpus is encoded shard by shard: the same vectors whatever the format, the workers and the interruptions."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spectra_nsa as sp
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import locked_folder
from spectra_nsa.workflows.corpus import run, shards
from spectra_nsa.workflows.corpus.engines import datatrove_step
from spectra_nsa.workflows.corpus.files import convert, read_corpus
from spectra_nsa.workflows.corpus.job import CorpusJob
from spectra_nsa.workflows.corpus.run import encode_corpus, parse_part, plan_corpus
from tests.builders import WORDS, bert_folder

ROWS = 37


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("corpus")
    start = bert_folder(home / "start")
    sp.warm_start(start).save_pretrained(str(home / "model"))
    generator = random.Random(0)
    rows = [
        {"id": f"d{n}", "text": f"{n} " + " ".join(generator.choices(WORDS, k=generator.randint(1, 20)))}
        for n in range(ROWS)
    ]
    lines = [json.dumps(row) for row in rows]
    (home / "docs.jsonl").write_text("\n".join([*lines[:5], "{broken", *lines[5:]]) + "\n")
    return home


def texts_of(home: Path) -> list[str]:
    lines = (home / "docs.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines if "broken" not in line]


@pytest.fixture(scope="module")
def vectors(home: Path) -> Any:
    texts = [
        json.loads(line)["text"] for line in (home / "docs.jsonl").read_text().splitlines() if "broken" not in line
    ]
    return sp.load(home / "model").encode_document(texts, outputs=["embedding", "semantic", "fast"], precision="fp32")


def plan(home: Path, **options: Any) -> CorpusJob:
    options = {"precision": "fp32", "shard_rows": 10} | options
    return plan_corpus(str(home / "model"), str(home / "docs.jsonl"), **options)


def checksums(folder: Path) -> dict[str, str]:
    """Returns the checksums of the vectors' files."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix != ".json"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bits"])
@pytest.mark.parametrize("file_format", ["npy", "npz", "safetensors", "parquet"])
def test_every_format_holds_what_the_model_computes(
    home: Path, vectors: dict[str, np.ndarray], tmp_path: Path, dtype: str, file_format: str
) -> None:
    names = ("embedding",) if file_format == "npy" else ("embedding", "semantic", "fast")
    done = encode_corpus(plan(home, dtype=dtype, file_format=file_format, outputs=names), tmp_path / "v")
    assert done["complete"] and (done["rows"], done["shards"], done["encoded_shards"]) == (ROWS, 4, 4)
    wanted = convert({name: vectors[name] for name in names}, dtype)
    for name in names:
        rows = np.concatenate(list(read_corpus(tmp_path / "v", name)))
        assert rows.dtype == wanted[name].dtype and rows.shape == wanted[name].shape
        difference = np.abs(rows.astype(np.float64) - wanted[name])
        assert (difference > 1e-6).mean() < 0.01  # a value beside a rounding boundary
    with pytest.raises(UsageError, match="Did you mean 'embedding'"):
        next(read_corpus(tmp_path / "v", "embeding"))


def test_int8_rows_are_the_vectors_up_to_their_scale(vectors: dict[str, np.ndarray]) -> None:
    found = convert({"embedding": vectors["embedding"]}, "int8")
    again = found["embedding"] * found["embedding_scale"][:, None]
    assert np.abs(again - vectors["embedding"]).max() < 0.5 / 127
    zero = convert({"embedding": np.zeros((1, 4), np.float32)}, "int8")
    assert not zero["embedding"].any() and not zero["embedding_scale"].any()


def test_ids_and_texts_are_kept_beside_the_vectors(home: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    encode_corpus(plan(home), tmp_path / "npy")
    lines = [json.loads(line) for line in (tmp_path / "npy" / "part-00001.jsonl").read_text().splitlines()]
    assert lines[0] == {"row": 10, "id": "d10"} and len(lines) == 10
    encode_corpus(plan(home, keep_text=True, file_format="parquet"), tmp_path / "parquet")
    table = pq.read_table(tmp_path / "parquet" / "part-00003.parquet")
    assert table.column_names == ["row", "id", "text", "embedding"]
    assert table.column("row").to_pylist() == list(range(30, ROWS))
    assert table.column("text")[0].as_py().startswith("30 ")


def test_an_interrupted_run_resumes_with_the_same_bytes(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plan(home, file_format="npz")
    encode_corpus(job, tmp_path / "whole")
    write = shards.write_shard

    def fails(folder: Path, job: CorpusJob, shard: int, *rest: Any, **facts: Any) -> Any:
        if shard == 2:
            (folder / job.file(2)).write_bytes(b"half")  # killed between the vectors and the record
            raise KeyboardInterrupt
        return write(folder, job, shard, *rest, **facts)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards, "write_shard", fails)
        encode_corpus(job, tmp_path / "v")
    with pytest.raises(SpectraError, match="2 of 4 shards are missing"):
        next(read_corpus(tmp_path / "v"))
    (tmp_path / "v" / job.file(0)).write_bytes(b"cut")  # damaged later
    done = encode_corpus(job, tmp_path / "v")
    assert done["encoded_shards"] == 3 and done["complete"]
    assert checksums(tmp_path / "v") == checksums(tmp_path / "whole")
    assert encode_corpus(job, tmp_path / "v")["encoded_shards"] == 0


def test_another_plan_is_not_mixed_in(home: Path, tmp_path: Path) -> None:
    encode_corpus(plan(home), tmp_path / "v")
    with pytest.raises(UsageError, match="another dtype: 'float32' instead of 'float16'"):
        encode_corpus(plan(home, dtype="float16"), tmp_path / "v")
    done = encode_corpus(plan(home, dtype="float16"), tmp_path / "v", overwrite=True)
    assert done["encoded_shards"] == 4 and next(read_corpus(tmp_path / "v")).dtype == np.float16
    assert encode_corpus(plan(home, dtype="float16"), tmp_path / "v", overwrite=True)["encoded_shards"] == 0
    with locked_folder(tmp_path / "v"), pytest.raises(UsageError, match="another process"):
        encode_corpus(plan(home), tmp_path / "v", overwrite=True)
    assert next(read_corpus(tmp_path / "v")).dtype == np.float16
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="which would be lost"):
        encode_corpus(plan(home), tmp_path / "other")
    (tmp_path / "v" / "corpus.json").write_text('{"schema": 1, "rows": 3}')
    with pytest.raises(SpectraError, match="not what `spectra encode` writes"):
        next(read_corpus(tmp_path / "v"))
    assert encode_corpus(plan(home), tmp_path / "v", overwrite=True)["encoded_shards"] == 4


def test_changed_texts_are_refused(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "docs.txt"
    source.write_text("open a file\nclose it\n")
    job = plan_corpus(str(home / "model"), str(source), precision="fp32")
    source.write_text("open a file\nclose them\n")
    with pytest.raises(SpectraError, match="has changed since the first shard"):
        encode_corpus(job, tmp_path / "v")


def test_parts_and_workers_make_the_same_files(home: Path, tmp_path: Path) -> None:
    job = plan(home)
    encode_corpus(job, tmp_path / "whole")
    assert not encode_corpus(job, tmp_path / "parts", part=(2, 2))["complete"]
    assert encode_corpus(job, tmp_path / "parts", part=(1, 2))["complete"]
    assert checksums(tmp_path / "parts") == checksums(tmp_path / "whole")
    done = encode_corpus(job, tmp_path / "workers", workers=2)
    assert done["complete"]
    a, b = (np.concatenate(list(read_corpus(tmp_path / name))) for name in ("whole", "workers"))
    assert np.abs(a - b).max() < 1e-6  # another number of threads
    assert parse_part("2/8") == (2, 8) and parse_part(None) is None
    for text in ("0/3", "4/3", "x", "1/"):
        with pytest.raises(UsageError, match="write K/N"):
            parse_part(text)


def test_a_worker_that_dies_is_reported(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_work", os._exit)
    with pytest.raises(SpectraError, match="fewer --workers"):
        encode_corpus(plan(home), tmp_path / "v", workers=2)


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = (
        "import os, signal, time, multiprocessing\n"
        "from spectra_nsa.workflows.corpus import run\n"
        "def main():\n"
        "    worker = multiprocessing.get_context('spawn').Process(target=run._end_with_parent)\n"
        "    worker.start(); time.sleep(3); assert worker.is_alive()\n"
        "    print('started', flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__': main()\n"
    )
    (tmp_path / "parent.py").write_text(script)
    # The worker has the output open, too: without its end, this would wait until the time is over.
    done = subprocess.run([sys.executable, str(tmp_path / "parent.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL and done.stdout == "started\n"


def test_each_document_of_pairs_is_encoded_once(home: Path, tmp_path: Path) -> None:
    rows = [{"anchor": f"question {n}", "positive": f"answer {n % 3}"} for n in range(7)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    job = plan_corpus(str(home / "model"), str(tmp_path / "pairs.jsonl"), keep_text=True, file_format="parquet")
    encode_corpus(job, tmp_path / "v")
    import pyarrow.parquet as pq

    texts = pq.read_table(tmp_path / "v" / "part-00000.parquet").column("text").to_pylist()
    assert texts == ["answer 0", "answer 1", "answer 2"]


def test_shards_of_a_sparse_encoder(home: Path, tmp_path: Path) -> None:
    from scipy.sparse import vstack

    from spectra_nsa.workflows.index_models import find_any, open_any
    from tests.builders import tiny_masked_lm

    name = f"splade:{tiny_masked_lm(tmp_path / 'mlm')}"
    job = plan_corpus(name, str(home / "docs.jsonl"), dtype="sparse", active=5, precision="fp32", shard_rows=10)
    encode_corpus(job, tmp_path / "v")
    rows = vstack(list(read_corpus(tmp_path / "v")))
    encoder = open_any(find_any(name, ("sparse",)))
    texts = [
        json.loads(line)["text"] for line in (home / "docs.jsonl").read_text().splitlines() if "broken" not in line
    ]
    wanted = encoder.encode_csr(texts, "document", max_active_dims=5)
    assert rows.shape == wanted.shape and abs(rows - wanted).max() < 1e-5
    assert len(json.loads((tmp_path / "v" / "vocabulary.json").read_text())) == rows.shape[1]
    with pytest.raises(UsageError, match="written as npz"):
        plan_corpus(name, str(home / "docs.jsonl"), dtype="sparse", file_format="parquet")


def test_a_rank_of_datatrove_encodes_its_shards(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    from spectra_nsa.workflows.corpus.job import write_plan

    write_plan(tmp_path / "v", plan(home))
    list(datatrove_step(tmp_path / "v").run(None, rank=1, world_size=2))
    assert sorted(path.name for path in (tmp_path / "v").glob("*.npy")) == ["part-00001.npy", "part-00003.npy"]
    list(datatrove_step(tmp_path / "v").run(None, rank=0, world_size=2))
    assert len(np.concatenate(list(read_corpus(tmp_path / "v")))) == ROWS


def test_ray_encodes_with_two_workers(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    code = (
        "import sys; from spectra_nsa.workflows.corpus.run import *; from spectra_nsa.workflows.corpus.job import *;"
        "job = plan_corpus(sys.argv[1], sys.argv[2], precision='fp32', shard_rows=10);"
        "done = encode_corpus(job, sys.argv[3], workers=2, engine='ray'); assert done['complete'], done"
    )
    words = [str(home / "model"), str(home / "docs.jsonl"), str(tmp_path / "ray")]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    encode_corpus(plan(home), tmp_path / "whole")
    a, b = (np.concatenate(list(read_corpus(tmp_path / name))) for name in ("whole", "ray"))
    assert np.abs(a - b).max() < 1e-6
