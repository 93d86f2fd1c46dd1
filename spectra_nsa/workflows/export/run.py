"""`spectra export`: writes a model in other formats, and keeps those that agree with it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError, UsageError, missing_extra, unknown_name
from spectra_nsa.core.files import check_replaceable, read_json_object
from spectra_nsa.evaluation.open import SPLADE
from spectra_nsa.export.formats import FORMATS
from spectra_nsa.export.graph import INPUTS
from spectra_nsa.models.checks import local_folder, transformer_folder
from spectra_nsa.models.open import ModelFolder, open_model
from spectra_nsa.runtime.record import QUERIES, RECORD, TOKENIZER, TextFacts, is_export
from spectra_nsa.runtime.tokens import TextIds
from spectra_nsa.workflows.export.compare import SAME
from spectra_nsa.workflows.export.dense import DenseSubject
from spectra_nsa.workflows.export.shapes import check_shapes
from spectra_nsa.workflows.export.subject import Pairs, Subject, Wanted
from spectra_nsa.workflows.export.write import drop_stale, write_graph, write_record, write_tokenizer
from spectra_nsa.workflows.index_models import find_any, open_any

PLAIN = "sentence-transformers"  # a folder of another kind: plain BERT
CONFIG = "config.json"  # which transformers.js and Text Embeddings Inference want to see
CHECK_TEXTS = "python:stdlib"
ENOUGH = 20  # pairs
PAIRS, SAMPLES = 100, 20  # of the check, and further ones on which ranges of states are found
_EVERYTHING = Wanted()


def export_model(
    model: str,
    formats: Sequence[str],
    *,
    output: str | Path | None = None,
    wanted: Wanted = _EVERYTHING,
    texts: str = CHECK_TEXTS,
    least_cosine: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Exports a model, and checks each format against it on real texts.

    Args:
        model: the folder or Hub name of a Spectra model, a BERT-architecture checkpoint or a sparse encoder.
        formats: names from `FORMATS`, or ``"sentence-transformers"`` alone.
        output: the folder; ``None`` adds the formats to the model's own.
        wanted: what the graph holds.
        texts: a source of pairs to check with.
        least_cosine: the least cosine to the model's vectors that is accepted; ``None`` for the format's own.
        say: called with each line of progress.

    Returns:
        ``folder``, ``formats`` (by name: ``file``, ``bytes``, ``outputs``, ``dim``, ``length``, ``checks``),
        ``refused`` (by name: why; formats after it are written all the same) and ``notes``.

    Raises:
        UsageError: an option does not fit the model.
        SpectraError: the model cannot be opened, a library is not installed, or every format was refused.
    """
    names = _check_formats(formats)
    _check_libraries(names)
    files = find_any(model)
    folder = _target(model, files, output)
    if names == [PLAIN]:
        return _plain(files, folder)
    pairs, samples = _pairs(texts)
    subject = _subject(files, wanted, pairs, samples)
    subject.notes.extend(_few(pairs, texts))
    if stale := drop_stale(folder, files.checksum):
        subject.notes.append(f"removed exports of other weights: {', '.join(stale)}")
    done: dict[str, Any] = {}
    refused: dict[str, str] = {}
    traced: dict[str, Any] = {}
    for name in names:
        say(f"{name}: {FORMATS[name].says}")
        try:
            done[name] = _export(
                subject, name, folder, files, wanted.length, traced=traced, least=least_cosine, say=say
            )
        except UsageError:
            raise
        except SpectraError as error:
            if len(names) == 1:
                raise
            refused[name] = str(error)
            say(f"  {error}")
    if not done:
        raise SpectraError(f"every format was refused. {' '.join(refused.values())}")
    return {"folder": str(folder), "formats": done, "refused": refused, "notes": subject.notes}


def _subject(files: ModelFolder, wanted: Wanted, pairs: Pairs, samples: Sequence[str]) -> Subject:
    """Opens the model and encodes the texts of the check."""
    if files.kind == "sparse":
        from spectra_nsa.workflows.export.sparse import SparseSubject

        return SparseSubject(open_any(files), wanted, pairs, samples)
    return DenseSubject(open_model(files), wanted, pairs, samples)


def _export(
    subject: Subject,
    name: str,
    folder: Path,
    model: ModelFolder,
    length: int | None,
    *,
    traced: dict[str, Any],
    least: float | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Writes a format to a temporary folder, checks it there, and moves it to its place."""
    source = {"model": model.name, "model_sha256": model.checksum}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export.") as temporary:
        draft = Path(temporary)
        write_tokenizer(subject.tokenizer, draft)
        subject.write_beside(draft)
        begin = time.perf_counter()
        ids = TextIds(draft, TextFacts(**subject.text), length)
        with _writing(name):
            path = write_graph(
                subject.graph, name, draft, length=length, traced=traced, samples=lambda: _samples(ids, subject.samples)
            )
        facts = {"file": path.relative_to(draft).as_posix(), **subject.facts, "length": length}
        write_record(draft, source, subject.text, {name: facts})
        size = sum(file.stat().st_size for file in path.parent.iterdir())
        say(f"  written, {size / 1e6:,.1f} MB, {time.perf_counter() - begin:.0f} s; checking")
        begin = time.perf_counter()
        checks = _checked(draft, name, subject, least)
        say(f"  checked, {time.perf_counter() - begin:.0f} s")
        facts |= {"bytes": size, "checks": checks}
        _move(draft, folder, path.parent)
        own = transformer_folder(model.folder) / CONFIG
        if folder != model.folder and not (folder / CONFIG).is_file():
            shutil.copyfile(own if own.is_file() else draft / CONFIG, folder / CONFIG)
        write_record(folder, source, subject.text, {name: facts})
    return facts


@contextlib.contextmanager
def _writing(name: str) -> Iterator[None]:
    """Turns what torch's exporter, or a library that shrinks or converts graphs, raises into a `SpectraError`."""
    try:
        yield
    except (SpectraError, MemoryError, OSError):
        raise
    except Exception as error:  # each library has its own
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise SpectraError(f"{name} cannot be written ({type(error).__name__}: {reason}).") from error


def _samples(ids: TextIds, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Returns inputs of a graph for some texts, one by one: ranges are found without padding."""
    return [dict(zip(INPUTS, ids.padded([row]), strict=True)) for row in ids(texts)]


def _move(draft: Path, folder: Path, graphs: Path) -> None:
    """Moves the files of a draft to the folder: graphs, and the text files that are not there yet."""
    for part in (graphs, draft / QUERIES):
        for file in part.iterdir() if part.is_dir() else ():
            place = folder / part.name / file.name
            place.parent.mkdir(exist_ok=True)
            file.replace(place)
    if not (folder / TOKENIZER).is_file():
        for file in draft.glob("*.json"):
            if file.name != RECORD:
                shutil.move(file, folder / file.name)


def _checked(draft: Path, name: str, subject: Subject, least: float | None) -> dict[str, Any]:
    """Returns the figures of a format.

    Raises:
        SpectraError: it is too far from the model, or its vectors depend on the batch although they must not.
    """
    form = FORMATS[name]
    least = form.cosine if least is None else least
    engine = None
    if form.kind == "torch":
        from spectra_nsa.export.torch_graph import TorchEngine

        engine = TorchEngine(draft / form.file, subject.graph.names)
    runtime = subject.open(draft, name, engine)
    try:
        checks = subject.compare(runtime)
    except SpectraError:
        raise
    except Exception as error:  # of the library that runs it
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise SpectraError(f"{name} is refused: it does not run ({type(error).__name__}: {reason}).") from error
    worst = min(checks["outputs"].items(), key=lambda item: item[1].get("cosine_min", 1.0))
    cosine = worst[1].get("cosine_min", 1.0)
    quality = checks["ndcg@10"]
    if cosine < least:
        raise SpectraError(
            f"{name} is refused: the cosine of {worst[0]} to the model's is {cosine:.6f} at worst, below {least:g}. "
            f"nDCG@10 of {quality['pairs']} pairs is {quality['export']:.4f} instead of {quality['model']:.4f}. Take "
            "another format, or accept it with --least-cosine."
        )
    if form.invariant and checks["alone"]["cosine_min"] < min(SAME, least):
        raise SpectraError(
            f"{name} is refused: the cosine of a text's vector alone to that in a batch is "
            f"{checks['alone']['cosine_min']:.6f} at worst. Take another format."
        )
    check_shapes(runtime, subject.graph, subject.samples, subject.main, least)
    return checks


def _check_libraries(names: Sequence[str]) -> None:
    """Raises `SpectraError` if a library that a format needs is not installed, before anything is computed."""
    kinds = {FORMATS[name].kind for name in names if name != PLAIN}
    for kind, package, extra in (("onnx", "onnxscript", "onnx"), ("openvino", "openvino", "openvino")):
        if kind in kinds and find_spec(package) is None:
            raise missing_extra(package, extra)


def _check_formats(formats: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(formats))
    if not names:
        raise UsageError(f"name a format: {', '.join((*FORMATS, PLAIN))}.")
    for name in names:
        if name not in (*FORMATS, PLAIN):
            raise unknown_name("format", name, (*FORMATS, PLAIN))
    if PLAIN in names and len(names) > 1:
        raise UsageError(f"{PLAIN} is a folder of another kind: export it alone, to a folder of its own.")
    return names


def _target(model: str, files: ModelFolder, output: str | Path | None) -> Path:
    """Returns the folder of the export, after checking that it may be written to."""
    if output is not None and Path(output).resolve() != files.folder.resolve():
        folder = Path(output)
        if is_export(folder):
            _check_same_model(folder, files)
        else:
            check_replaceable(folder, RECORD)
        return folder
    if files.kind not in ("spectra", "sparse") or model.startswith(SPLADE) or local_folder(model) is None:
        raise UsageError(f"{model} is no Spectra model's folder: name the folder of the export with --output.")
    if not (files.folder / TOKENIZER).is_file():  # a model of several modules, which have their own
        raise UsageError(f"{model} has no {TOKENIZER} beside its modules: name the folder of the export with --output.")
    return files.folder


def _check_same_model(folder: Path, files: ModelFolder) -> None:
    """Raises `UsageError` if a folder has exports of another model: its tokenizer would belong to one of them."""
    record = read_json_object(folder / RECORD)
    if record.get("model") != files.name and record.get("model_sha256") != files.checksum:
        raise UsageError(f"{folder} has exports of {record.get('model')}: choose another folder, or delete it.")


def _plain(files: ModelFolder, folder: Path) -> dict[str, Any]:
    if files.kind == "sparse":
        raise UsageError(f"{files.name} is a folder that sentence-transformers' SparseEncoder opens as it is.")
    from spectra_nsa.export.bert import export_bert

    export_bert(open_model(files), folder)
    return {"folder": str(folder), "formats": {PLAIN: {"file": "."}}, "refused": {}, "notes": []}


def _pairs(source: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Returns pairs of a source to check with, drawn at random, and texts of others to find ranges of states on.

    Of plain texts each is its own pair. A source of few pairs gives the same ones for both.
    """
    from spectra_nsa.workflows.moe.texts import read_domains

    domains, _ = read_domains([f"texts={source}"], limit=PAIRS + SAMPLES)
    queries = domains[0].queries or domains[0].documents
    pairs = list(zip(queries, domains[0].documents, strict=True))
    samples = pairs[-SAMPLES:]
    return pairs[:PAIRS], [text for pair in samples for text in pair]


def _few(pairs: Sequence[tuple[str, str]], source: str) -> list[str]:
    """Returns notes on texts that show little of an export's quality."""
    notes = []
    if len(pairs) < ENOUGH:
        notes.append(f"{source} has only {len(pairs)} texts or pairs to check with")
    if all(query == document for query, document in pairs):
        notes.append(f"{source} has no pairs: each text finds itself, so nDCG@10 says nothing")
    return notes
