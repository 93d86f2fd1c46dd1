"""The files of a shard: vectors in one of several formats, and the record that commits them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.checksums import describe
from spectra_nsa.core.errors import SpectraError, UsageError, missing_extra, opening, unknown_name
from spectra_nsa.core.files import atomic_write, expand_user, read_json, write_json
from spectra_nsa.workflows.corpus.job import CorpusJob, read_plan, shard_name

Arrays = dict[str, NDArray[Any]]
SCALE = "_scale"  # of the numbers of an int8 row: row ≈ scale × int8
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever a shard is written


def convert(arrays: Mapping[str, NDArray[Any]], dtype: str) -> Arrays:
    """Returns vectors in the type in which they are stored; bytes, flags and single numbers stay as they are.

    Args:
        arrays: (N, D) or (N,) by name.
        dtype: ``"float32"``, ``"float16"``, ``"int8"`` (with a scale for each row, in `NAME_scale`) or ``"bits"`` (the
            signs, 8 in a byte, as `numpy.packbits` orders them).
    """
    found: Arrays = {}
    for name, array in arrays.items():
        if array.dtype.kind != "f" or array.ndim < 2:
            found[name] = array
        elif dtype == "int8":
            scale_N = np.abs(array).max(1) / 127
            rows = array / np.maximum(scale_N, np.finfo(np.float32).tiny)[:, None]
            found[name], found[name + SCALE] = np.rint(rows).astype(np.int8), scale_N.astype(np.float32)
        elif dtype == "bits":
            found[name] = np.packbits(array > 0, axis=-1)
        else:
            found[name] = array.astype(dtype)
    return found


def write_shard(
    folder: Path, job: CorpusJob, shard: int, arrays: Arrays, records: Sequence[Mapping[str, Any]], **facts: Any
) -> dict[str, Any]:
    """Writes a shard, and last of all the record by which it counts as done.

    Args:
        folder: of the corpus.
        job: its plan.
        shard: its number.
        arrays: by name; the three arrays of CSR rows for sparse rows.
        records: `id` and `text` of each row, as far as they are kept; empty for none.
        facts: further facts for the record.

    Returns:
        the record.
    """
    rows = job.range(shard)
    names = [job.file(shard)]
    with atomic_write(folder / names[0], "wb") as file:
        if job.format == "npy":
            np.save(file, arrays[job.outputs[0]])  # of int8 rows the direction is enough
        elif job.format == "npz":
            _write_npz(file, arrays)
        elif job.format == "safetensors":
            from safetensors.numpy import save

            file.write(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
        else:
            _write_parquet(file, rows, arrays, records)
    if records and job.format != "parquet":
        names.append(f"{shard_name(shard)}.jsonl")
        with atomic_write(folder / names[1], "wb") as file:
            for row, record in zip(rows, records, strict=True):
                file.write(json.dumps({"row": row} | dict(record)).encode() + b"\n")
    record = {"shard": shard, "first": rows.start, "rows": len(rows), **facts}
    record["files"] = {name: describe(folder / name) for name in names}
    write_json(folder / f"{shard_name(shard)}.json", record)
    return record


def finished(folder: Path, job: CorpusJob, shard: int) -> bool:
    """Returns whether a shard is complete: its record is there, and its files have the sizes in it."""
    path = folder / f"{shard_name(shard)}.json"
    try:
        if shard < 0:
            return False
        record = read_json(path)
        sizes = {name: facts["size"] for name, facts in record["files"].items()}
        return (
            record["rows"] == len(job.range(shard))
            and job.file(shard) in sizes
            and all((folder / name).stat().st_size == size for name, size in sizes.items())
        )
    except (SpectraError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return False


def read_corpus(folder: str | Path, output: str | None = None) -> Iterator[NDArray[Any]]:
    """Yields the rows of each shard of an encoded corpus, in the order of the source.

    Args:
        folder: what ``spectra encode --output FOLDER`` wrote.
        output: the name of an array; ``None`` for the first output. Sparse rows are scipy CSR matrices.

    Raises:
        UsageError: there is no such array.
        SpectraError: shards are missing, or a file is damaged.
    """
    folder, job = expand_user(folder), read_plan(folder)
    there = sum(1 for path in folder.glob("part-*.json") if finished(folder, job, _number(path)))
    if there < job.shards:
        raise SpectraError(
            f"{folder}: {job.shards - there:,} of {job.shards:,} shards are missing. Run `spectra encode` again."
        )
    for shard in range(job.shards):
        with opening(folder / job.file(shard)):
            yield _read(folder / job.file(shard), job, job.outputs[0] if output is None else output)


def _number(record: Path) -> int:
    """Returns the number in the name of a record; −1 if there is none."""
    digits = record.stem.removeprefix("part-")
    return int(digits) if digits.isdecimal() and len(digits) < 19 else -1


def _read(path: Path, job: CorpusJob, name: str) -> Any:
    if job.dtype == "sparse":
        from scipy.sparse import load_npz

        return load_npz(path)
    if job.format == "npy":
        if name != job.outputs[0]:
            raise unknown_name("array", name, job.outputs)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    if job.format == "parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        if name not in table.column_names:
            raise unknown_name("array", name, table.column_names)
        column = table.column(name).combine_chunks()
        if not hasattr(column.type, "list_size"):
            return column.to_numpy(zero_copy_only=False)
        return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    if job.format == "safetensors":
        from safetensors.numpy import load_file

        arrays: Mapping[str, Any] = load_file(path)
    else:
        arrays = np.load(path, allow_pickle=False)
    if name not in arrays:
        raise unknown_name("array", name, list(arrays))
    return arrays[name]


def _write_npz(file: IO[bytes], arrays: Arrays) -> None:
    """Writes what `numpy.load` and `scipy.sparse.load_npz` read, with the same bytes each time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)


def _write_parquet(file: IO[bytes], rows: range, arrays: Arrays, records: Sequence[Mapping[str, Any]]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    columns: dict[str, Any] = {"row": pa.array(rows, pa.int64())}
    for name in records[0] if records else ():
        columns[name] = pa.array([record[name] for record in records], pa.string())
    for name, array in arrays.items():
        if name in columns:
            raise UsageError(f"the output {name!r} has the name of a column. Choose --format npz.")
        flat = pa.array(np.ascontiguousarray(array).reshape(-1))
        columns[name] = flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
    pq.write_table(pa.table(columns), file)
