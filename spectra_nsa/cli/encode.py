"""`spectra encode`: vectors of texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.encode_corpus import (
    Devices,
    DryRun,
    DType,
    Engine,
    FileFormat,
    FolderOptions,
    KeepText,
    Overwrite,
    Part,
    Role,
    ShardRows,
    Workers,
    encode_to_folder,
    to_folder,
)
from spectra_nsa.cli.encode_sparse import (
    check_model_name,
    check_sparse_output,
    encode_sparse,
    is_sparse,
)
from spectra_nsa.cli.options import Columns, Precision, shared_columns
from spectra_nsa.cli.texts import check_not_blank, open_for, read_texts
from spectra_nsa.core.console import print_json
from spectra_nsa.core.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import numpy as np

    from spectra_nsa.cli.texts import AnyEncoder
    from spectra_nsa.heads.spec import ModelSpec


_FEW = 64  # texts that are encoded sooner than torch is loaded
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="File to write: .npz, or .npy for one output; or a folder, for a corpus of any size."
    ),
]
Active = Annotated[
    int | None, typer.Option(min=1, help="Keep only this many largest weights of each text (sparse encoder).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, including the vectors unless --output is set.")]


def encode_command(
    model: Annotated[str, typer.Argument(help="A model folder, or a Hub name of a BERT-architecture checkpoint.")],
    texts: Annotated[list[str] | None, typer.Option("--texts", "-t", help="A text. Repeatable.")] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="More texts.")] = None,
    source: Annotated[str | None, typer.Option("--input", "-i", help="A file or other source of texts.")] = None,
    columns: Columns = None,
    output: Output = None,
    outputs: Annotated[str, typer.Option(help="Comma-separated output names.")] = "embedding",
    dim: Annotated[int | None, typer.Option(min=1, help="Truncate to this many leading dimensions.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Texts per batch. The default fits the device.")] = None,
    precision: Precision = "auto",
    dtype: DType = None,
    role: Role = None,
    active: Active = None,
    file_format: FileFormat = None,
    shard_rows: ShardRows = None,
    keep_text: KeepText = False,
    workers: Workers = 1,
    devices: Devices = None,
    engine: Engine = "local",
    part: Part = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Encode texts as vectors, or as weighted terms by a sparse encoder.

    With a folder as --output, a corpus of any size is encoded to numbered files. A run that was stopped goes on where
    it was: run the same command again.

    Example: spectra encode runs/quickstart/model --texts "open a file" "close a socket" --dim 128

    Example: spectra encode runs/quickstart/model --input docs.jsonl --output vectors/ --dtype float16 --workers 4
    """
    names = [name.strip() for name in outputs.split(",") if name.strip()]
    rows = [*(texts or []), *(more or [])]
    check_not_blank(*rows)
    sparse = dtype == "sparse" or is_sparse(model)
    folder = FolderOptions(
        format=file_format, shard_rows=shard_rows, keep_text=keep_text, workers=workers, devices=devices,
        engine=engine, part=part, overwrite=overwrite, dry_run=dry_run,
    )  # fmt: skip
    if output is not None and to_folder(output, sparse=sparse, used=folder.used()):
        if rows or batch is not None:
            raise UsageError(f"--output {output} is a folder, for a corpus: --texts and --batch do not apply to it.")
        encode_to_folder(
            model, source, output, names, folder, columns=shared_columns(columns).columns, sparse=sparse, dtype=dtype,
            role=role or "document", dim=dim, active=active, precision=precision, as_json=as_json,
        )  # fmt: skip
        return
    to_folder(output, sparse=sparse, used=folder.used())
    _encode_in_memory(
        model, rows, names, source=source, columns=columns, sparse=sparse, active=active, dim=dim, batch=batch,
        precision=precision, dtype=dtype, role=role, output=output, as_json=as_json,
    )  # fmt: skip


def _encode_in_memory(
    model: str,
    rows: list[str],
    names: list[str],
    *,
    source: str | None,
    columns: str | None,
    sparse: bool,
    active: int | None,
    dim: int | None,
    batch: int | None,
    role: str | None,
    dtype: str | None,
    **options: Any,
) -> None:
    """Encodes texts that fit in memory; prints them, or writes one file."""
    mapping = shared_columns(columns)
    if sparse:
        check_sparse_output(options["output"], names, dim)
    else:
        _check_dense(model, options["output"], names, active=active)
    if source is not None:
        check_model_name(model)
        rows = rows + read_texts(source, mapping)
    mapping.check()
    if not rows:
        raise UsageError('give texts: --texts "a" "b", or --input FILE.')
    options["quarantined"] = mapping.quarantined
    if sparse:
        encode_sparse(model, rows, role=role or "document", active=active, batch=batch or 32, **options)
        return
    _encode_dense(model, rows, names, dim=dim, batch=batch, dtype=dtype, role=role, **options)


def _encode_dense(
    model: str,
    rows: list[str],
    names: list[str],
    *,
    dim: int | None,
    batch: int | None,
    precision: str,
    dtype: str | None,
    role: str | None,
    output: Path | None,
    as_json: bool,
    quarantined: int,
) -> None:
    """Encodes texts by a dense model; prints the vectors' first numbers, or writes them."""
    from spectra_nsa.metrics.finite import check_finite

    few = len(rows) <= _FEW and precision == "auto" and batch is None
    encoder = open_for(model, dim, names if few else None)
    arrays, precision = _encode(encoder, model, rows, names, dim=dim, batch=batch, precision=precision, role=role)
    for array in arrays.values():
        check_finite(array, model)
    if dtype is not None:
        from spectra_nsa.workflows.corpus.files import convert

        arrays = convert(arrays, dtype)
    if output is not None:
        _write(output, arrays)
    if as_json:
        document = {"schema": 1, "model": model, "texts": rows, "output": str(output) if output else None}
        document |= {"precision": precision, "quarantined": quarantined}
        vectors = {} if output else {name: array.tolist() for name, array in arrays.items()}
        print_json(document | {"shapes": {n: list(a.shape) for n, a in arrays.items()}, "outputs": vectors})
        return
    for name, array in arrays.items():
        target = f" → {output}" if output else ""
        print(f"{name}: {' × '.join(map(str, array.shape))} {array.dtype}{target}")
        if output is None:
            _show_first_rows(rows[:10], array)


def _encode(
    encoder: AnyEncoder,
    model: str,
    rows: list[str],
    names: list[str],
    *,
    dim: int | None,
    batch: int | None,
    precision: str,
    role: str | None,
) -> tuple[dict[str, Any], str]:
    """Returns the outputs, and the number format that they were computed in."""
    from spectra_nsa.runtime import Runtime
    from spectra_nsa.workflows.cut_texts import warn_cut

    warn_cut(encoder, rows, role, model)
    chosen, options = "fp32", dict[str, Any](batch_size=batch)
    if isinstance(encoder, Runtime):
        if precision not in ("auto", chosen):
            raise UsageError(f"--precision {precision}: {model} is an export, which has the precision of its file.")
    else:
        from spectra_nsa.core.precision import resolve_precision

        _warn_unfitted(model, encoder.spec, names)
        chosen = resolve_precision(precision, encoder.device.type)
        options = {"batch_size": batch, "precision": chosen}
    encode = encoder.encode if role is None else getattr(encoder, f"encode_{role}")
    return encode(rows, outputs=names, truncate_dim=dim, **options), chosen


def _write(output: Path, arrays: dict[str, Any]) -> None:
    import numpy as np

    from spectra_nsa.core.files import atomic_write

    with atomic_write(output, "wb") as file:
        if output.suffix == ".npy":
            np.save(file, next(iter(arrays.values())))
        else:
            np.savez(file, **arrays)


def _show_first_rows(texts: list[str], array: np.ndarray) -> None:
    import numpy as np

    for text, row in zip(texts, array, strict=False):
        values = np.atleast_1d(row)
        head = " ".join(f"{value:+.4f}" if array.dtype.kind == "f" else str(value) for value in values[:6])
        print(f"  {head}{' …' if len(values) > 6 else ''}  {text[:60]!r}")


def _check_dense(model: str, output: Path | None, names: list[str], *, active: int | None) -> None:
    """Checks output and options of a dense model."""
    if output is not None:
        _check_output(output, len(names))
    _check_outputs(names)
    if active is not None:
        raise UsageError(f"--active is for sparse encoders, and {model} is not the folder of one.")


def _check_output(output: Path, count: int) -> None:
    """Checks that the output is no folder, and that its suffix fits the number of outputs."""
    if output.is_dir():
        raise UsageError(f"{output} is a folder: name a file, such as {output / 'vectors.npz'}.")
    if output.suffix not in (".npz", ".npy"):
        raise UsageError(f"--output {output}: name a file that ends in .npz (or .npy), such as {output.stem}.npz.")
    if output.suffix == ".npy" and count > 1:
        raise UsageError(
            f"--output {output}: an .npy file holds a single array, and --outputs names {count}. Name a file that ends "
            f"in .npz, such as {output.with_suffix('.npz')}."
        )


def _check_outputs(names: list[str]) -> None:
    from spectra_nsa.heads.kinds import ALL_OUTPUTS, OUTPUTS

    if not names:
        raise UsageError(f"--outputs names no output. Valid: {', '.join(OUTPUTS)}.")
    for name in names:
        if name not in ALL_OUTPUTS:
            raise unknown_name("output", name, ALL_OUTPUTS)


def _warn_unfitted(model: str, spec: ModelSpec, names: list[str]) -> None:
    """Prints a warning for each head that the outputs come from and that was never fitted."""
    heads = {
        "binary codes": (("fast", "fast_logits"), spec.codes_fitted, "codes fit MODEL --corpus FILE"),
        "anomaly score": (("anomaly",), spec.anomaly_method != "none", "anomaly fit MODEL --texts FILE"),
    }
    for head, (outputs, fitted, command) in heads.items():
        if not fitted and (asked := [name for name in outputs if name in names]):
            print(
                f"spectra: warning: {', '.join(asked)}: the {head} of {model} {'are' if head[-1] == 's' else 'is'} not "
                f"fitted to a corpus. To fit: spectra {command}",
                file=sys.stderr,
            )
