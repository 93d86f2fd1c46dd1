"""The speed of encoding on a CPU: this package and its peers, all on the same texts in one run.

    python benchmarks/encode.py [--texts 300] [--rounds 3] [--isa avx2] [--json FILE]

MiniLM on one thread. Passages of mixed length (answers, mail, books, commands and code of the shared datasets, at most
900 characters), in CPU seconds, the best of several alternated rounds; and one query of 10 words at a time, the median
of 200. Each engine has its own batches as its users get them; CTranslate2 and OpenVINO, which have none, get batches by
tokens like ours. OpenVINO in 8 bits needs NNCF. `cosine` compares with sentence-transformers in fp32.

`--isa` hides instructions from oneDNN and MKL (avx512, avx2). ONNX Runtime and OpenVINO ignore it, which flatters them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("SPECTRA_DATA", "../shared/data"))
SOURCES = {
    "medquad": "positive", "newsgroups20": "text", "classic_books": "text", "tldr_commands": "positive",
    "codenn_sql": "positive",
}  # fmt: skip
QUERY = "how do I open a text file and read its lines"
MASKS = {
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
Encode = Callable[[list[str]], Any]


def passages(count: int) -> list[str]:
    """Returns passages of all sources in random order."""
    found: list[str] = []
    for name, column in SOURCES.items():
        with gzip.open(DATA / name / "train.jsonl.gz", "rt", encoding="utf-8") as file:
            texts = [json.loads(line)[column][:900] for line in file]
        random.Random(0).shuffle(texts)
        found += texts[: count // len(SOURCES)]
    random.Random(1).shuffle(found)
    return found


def engines(start: str, exports: Path, folder: Path) -> dict[str, Encode]:
    """Opens all engines that are installed."""
    import torch
    from sentence_transformers import SentenceTransformer

    import spectra_nsa as sp
    from spectra_nsa.core.precision import cpu_multiplies_bf16
    from spectra_nsa.runtime import Runtime

    theirs, ours = SentenceTransformer(start, device="cpu"), sp.warm_start(start)
    found: dict[str, Encode] = {"sentence-transformers fp32": theirs.encode}
    if cpu_multiplies_bf16():

        def half(texts: list[str]) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return theirs.encode(texts)

        found["sentence-transformers bf16"] = half
        found["ours bf16 (default here)"] = lambda texts: ours.encode(texts, precision="bf16")
    found["ours fp32"] = lambda texts: ours.encode(texts, precision="fp32")
    for name in ("onnx", "onnx-int8", "onnx-int8-fast"):
        found[f"our runtime, {name}"] = Runtime(exports, format=name, threads=1).encode
    for precision in ("fp32", "bf16") if cpu_multiplies_bf16() else ("fp32",):
        found[f"our runtime, openvino {precision}"] = Runtime(
            exports, format="openvino", threads=1, precision=precision
        ).encode
    try:
        found["OpenVINO int8"] = Runtime(exports, format="openvino", engine=openvino_int8(exports)).encode
    except ImportError:
        print("NNCF is not installed, and OpenVINO int8 is left out", file=sys.stderr)
    except RuntimeError as error:  # OpenVINO finds no kernel if instructions are hidden
        print(f"OpenVINO int8 does not run: {str(error).splitlines()[0]}", file=sys.stderr)
    try:
        import ctranslate2  # noqa: F401
    except ImportError:
        print("CTranslate2 is not installed and is left out", file=sys.stderr)
        return found
    for kind in ("float32", "int8"):
        found[f"CTranslate2 {kind}"] = ctranslate2_encoder(start, folder, kind, ours)
    return found


def openvino_int8(exports: Path) -> Any:
    """Opens the exported graph in 8 bits, quantized by NNCF on 100 passages as its documentation advises."""
    import nncf
    import openvino

    from spectra_nsa.runtime.engines import OpenVinoEngine
    from spectra_nsa.runtime.record import read_export
    from spectra_nsa.runtime.tokens import TextIds

    engine = OpenVinoEngine(facts := read_export(exports, "openvino"), 1)
    ids = TextIds(exports, facts.text)
    samples = [dict(zip(("input_ids", "attention_mask"), ids.padded([row]), strict=True)) for row in ids(passages(100))]
    model = nncf.quantize(
        openvino.Core().read_model(facts.file), nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER
    )
    engine.model = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
    return engine


def ctranslate2_encoder(start: str, folder: Path, kind: str, ours: Any) -> Encode:
    """Converts the model; pools and normalizes as it does."""
    import ctranslate2
    import numpy as np

    from spectra_nsa.tokens.lengths import group_by_tokens

    target = folder / "ct2"
    if not target.exists():
        ctranslate2.converters.TransformersConverter(start).convert(str(target))
    encoder = ctranslate2.Encoder(str(target), compute_type=kind, intra_threads=1, inter_threads=1)
    tokenizer = ours.tokenizer

    def encode(texts: list[str] | str) -> Any:
        several = [texts] if isinstance(texts, str) else texts
        rows = tokenizer(several, truncation=True, max_length=ours.max_seq_length)["input_ids"]
        vectors = np.empty((len(rows), 384), np.float32)
        for group in group_by_tokens([len(row) for row in rows], 2048):
            states = np.array(encoder.forward_batch([rows[at] for at in group]).last_hidden_state)
            for at, state in zip(group, states, strict=True):
                vectors[at] = state[: len(rows[at])].mean(0)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


def measure(encode: Encode, texts: list[str]) -> tuple[float, Any]:
    """Returns CPU seconds and vectors."""
    start = time.process_time()
    vectors = encode(texts)
    return time.process_time() - start, vectors


def latency(encode: Encode) -> float:
    """Returns the median milliseconds of one query."""
    times = []
    for _ in range(200):
        start = time.perf_counter()
        encode(QUERY)  # type: ignore[arg-type]
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[20:])


def peak_share(seconds: dict[str, float], texts: list[str], ours: str) -> dict[str, float]:
    """Returns the GFLOP/s of the matrices of our engine, and the peak of a matrix product, in the same format."""
    import torch
    from tokenizers import Tokenizer

    from spectra_nsa.core.starter import starter_checkpoint
    from spectra_nsa.training.monitor.throughput import matmul_peak

    tokenizer = Tokenizer.from_file(str(starter_checkpoint()[0] / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))
    work = 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536) * tokens
    peak = matmul_peak(torch.device("cpu"), "bf16" if "bf16" in ours else "fp32")
    return {"tokens": tokens, "gflops": work / seconds[ours] / 1e9, "peak_gflops": peak / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--isa", choices=sorted(MASKS))
    parser.add_argument("--exports", type=Path, help="an export of MiniLM; made if it is absent")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    mask = MASKS[options.isa] if options.isa else {}
    wanted = mask | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):  # they are read when libraries load
        sys.exit(subprocess.call([sys.executable, *sys.argv], env=os.environ | wanted))

    import numpy as np

    from spectra_nsa.core.results import environment
    from spectra_nsa.core.starter import starter_checkpoint
    from spectra_nsa.workflows.export.run import export_model
    from spectra_nsa.workflows.export.subject import Wanted

    start, texts = str(starter_checkpoint()[0]), passages(options.texts)
    with tempfile.TemporaryDirectory() as name:
        exports = options.exports or Path(name) / "exports"
        if not (exports / "export.json").is_file():
            formats = ["onnx", "onnx-int8", "onnx-int8-fast", "openvino"]
            export_model(start, formats, output=exports, wanted=Wanted(outputs=["embedding"]), least_cosine=0.9)
        found = engines(start, exports, Path(name))
        seconds: dict[str, float] = {}
        vectors: dict[str, Any] = {}
        for encode in found.values():
            encode(texts[:20])
        for _ in range(options.rounds):
            for engine, encode in found.items():
                spent, vectors[engine] = measure(encode, texts)
                seconds[engine] = min(spent, seconds.get(engine, spent))
        milliseconds = {engine: latency(encode) for engine, encode in found.items()}
    reference = next(iter(found))
    lines = []
    for engine in found:
        cosines = (vectors[engine] * vectors[reference]).sum(1) / np.linalg.norm(vectors[engine], axis=1)
        lines.append({
            "engine": engine, "texts_per_second": len(texts) / seconds[engine],
            "ratio": seconds[reference] / seconds[engine], "query_ms": milliseconds[engine],
            "cosine_mean": float(cosines.mean()), "cosine_min": float(cosines.min()),
        })  # fmt: skip
    ours = next(engine for engine in found if engine.startswith("ours"))
    document = {"engines": lines, "isa": options.isa, "environment": environment()} | peak_share(seconds, texts, ours)
    print(f"{'engine':<28} texts/s  ratio  query ms  cosine (mean, worst)")
    for line in lines:
        print(
            f"{line['engine']:<28} {line['texts_per_second']:7.1f} {line['ratio']:6.2f} {line['query_ms']:9.2f}  "
            f"{line['cosine_mean']:.5f} {line['cosine_min']:.5f}"
        )
    print(f"{ours}: {document['gflops']:.0f} GFLOP/s in matrices, of {document['peak_gflops']:.0f} at most")
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
