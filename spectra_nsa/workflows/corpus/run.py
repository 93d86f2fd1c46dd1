"""The encoding of a whole corpus: plan, workers, progress."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import check_replaceable, expand_user, locked_folder
from spectra_nsa.core.progress import Progress
from spectra_nsa.workflows.corpus.files import finished
from spectra_nsa.workflows.corpus.job import PLAN, SHARD_ROWS, CorpusJob, check_job, read_plan, write_plan
from spectra_nsa.workflows.corpus.model import find_for_corpus
from spectra_nsa.workflows.corpus.shards import ShardEncoder
from spectra_nsa.workflows.corpus.texts import load_texts

_ENCODER: ShardEncoder | None = None  # of a worker process


def plan_corpus(
    model: str,
    source: str,
    *,
    columns: Mapping[str, str] | None = None,
    role: str = "document",
    outputs: Sequence[str] = ("embedding",),
    dim: int | None = None,
    active: int | None = None,
    precision: str = "auto",
    dtype: str = "float32",
    file_format: str | None = None,
    shard_rows: int = SHARD_ROWS,
    keep_text: bool = False,
) -> CorpusJob:
    """Reads model and texts, and returns the plan of their encoding.

    Args:
        model: a folder or Hub name, dense, or sparse if `dtype` is ``"sparse"``.
        source: of the texts, as `load_source` reads it.
        columns: role → column; ``None`` detects the roles.
        file_format: one of `FORMATS`; ``None`` for one that fits.
        precision: ``"auto"`` for the fastest format of this machine, which then holds for all.
        role, outputs, dim, active, dtype, shard_rows, keep_text: see `CorpusJob`.

    Raises:
        UsageError: the options do not fit each other.
        SpectraError: there is no such model or source.
    """
    from spectra_nsa.core.precision import resolve_precision

    chosen = check_job(dtype, file_format, len(outputs))
    files = find_for_corpus(model, sparse=dtype == "sparse")
    texts = load_texts(source, columns, keep_text=keep_text)
    return CorpusJob(
        model=model, checksum=files.checksum, source=source, columns=dict(columns or {}), digest=texts.digest,
        rows=len(texts), quarantined=texts.quarantined, role=role, outputs=tuple(outputs), dim=dim, active=active,
        precision=resolve_precision(precision), dtype=dtype, format=chosen, shard_rows=shard_rows,
        keep_text=keep_text,
    )  # fmt: skip


def encode_corpus(
    job: CorpusJob,
    folder: str | Path,
    *,
    workers: int = 1,
    devices: Sequence[str] | None = None,
    engine: str = "local",
    part: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Encodes a corpus, or what is missing of it.

    Args:
        job: the plan.
        folder: of the shards. One that holds shards of the same plan is completed.
        workers: processes.
        devices: such as ``["cuda:0", "cuda:1"]``, which the workers share out; ``None`` lets torch choose.
        engine: ``"local"`` for processes of this machine, or ``"ray"``.
        part: (k, n) for the k-th of n parts, counted from 1, of machines that share a folder; ``None`` for all.
        overwrite: whether to replace shards of another plan.

    Returns:
        shards and rows, how many of both were encoded now, the seconds, and whether all shards are there.

    Raises:
        UsageError: the folder holds something else, or another process encodes into it.
        SpectraError: a shard cannot be encoded; those before it are kept.
    """
    folder = expand_user(folder)
    if engine == "ray" and devices:
        raise UsageError("--devices is for processes of this machine: Ray assigns GPUs itself.")
    check_replaceable(folder, PLAN)
    with contextlib.nullcontext() if part else locked_folder(folder):
        write_plan(folder, job, overwrite=overwrite)
        job = read_plan(folder)
        mine = [shard for shard in range(job.shards) if part is None or shard % part[1] == part[0] - 1]
        missing = [shard for shard in mine if not finished(folder, job, shard)]
        start, rows = time.monotonic(), 0
        there = sum(len(job.range(shard)) for shard in mine) - sum(len(job.range(shard)) for shard in missing)
        with Progress(total=sum(len(job.range(shard)) for shard in mine), done=there) as progress:
            for record in _records(folder, missing, workers, devices, engine):
                rows += record["rows"]
                progress.advance(record["rows"])
    return {
        "shards": job.shards,
        "rows": job.rows,
        "encoded_shards": len(missing),
        "encoded_rows": rows,
        "seconds": round(time.monotonic() - start, 1),
        "complete": all(finished(folder, job, shard) for shard in range(job.shards)),
    }


def _records(
    folder: Path, shards: Sequence[int], workers: int, devices: Sequence[str] | None, engine: str
) -> Iterator[dict[str, Any]]:
    """Yields the record of each shard once it is written."""
    if not shards:
        return
    if engine == "ray":
        from spectra_nsa.workflows.corpus.engines import encode_with_ray

        yield from encode_with_ray(folder, shards, workers)
    elif workers == 1:
        encoder = ShardEncoder(folder, device=devices[0] if devices else None)
        yield from (encoder(shard) for shard in shards)
    else:
        yield from _by_processes(folder, shards, workers, devices)


def _by_processes(
    folder: Path, shards: Sequence[int], workers: int, devices: Sequence[str] | None
) -> Iterator[dict[str, Any]]:
    workers = min(workers, len(shards))
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(workers, context, _open_worker, (str(folder), devices, threads, numbers))
    try:
        futures: list[Future[dict[str, Any]]] = [pool.submit(_work, shard) for shard in shards]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise SpectraError(
            "a worker was killed, most often because memory ran out. The finished shards are kept: run the command "
            "again with fewer --workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _open_worker(folder: str, devices: Sequence[str] | None, threads: int, numbers: Any) -> None:
    global _ENCODER
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number = numbers.get()
    device = devices[number % len(devices)] if devices else None
    _ENCODER = ShardEncoder(folder, device=device, threads=threads)


def _end_with_parent() -> None:
    """Ends this process once its parent is gone, however that died: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(shard: int) -> dict[str, Any]:
    assert _ENCODER is not None
    return _ENCODER(shard)


def parse_part(text: str | None) -> tuple[int, int] | None:
    """Reads ``"K/N"``.

    Raises:
        UsageError: it is something else, or K is not from 1 to N.
    """
    if text is None:
        return None
    first, _, second = text.partition("/")
    if first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise UsageError(f"--part {text}: write K/N with K from 1 to N, such as 2/8 for the second of eight machines.")
