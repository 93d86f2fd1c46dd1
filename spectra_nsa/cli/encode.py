"""`spectra encode` and `spectra similarity`: vectors of texts and the cosine of two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spectra_nsa.cli.encode_sparse import (
    check_model_name,
    check_sparse_output,
    encode_sparse,
    is_sparse,
    sparse_similarity,
)
from spectra_nsa.cli.options import Columns, Precision, shared_columns
from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError, unknown_name
from spectra_nsa.core.strings import is_blank

if TYPE_CHECKING:
    import numpy as np

    from spectra_nsa.heads.spec import ModelSpec
    from spectra_nsa.models.saved import SavedModel
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.text.shared_columns import SharedColumns


def encode_command(
    model: Annotated[str, typer.Argument(help="A model folder, or a Hub name of a BERT-architecture checkpoint.")],
    texts: Annotated[list[str] | None, typer.Option("--texts", "-t", help="A text. Repeatable.")] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="More texts.")] = None,
    source: Annotated[str | None, typer.Option("--input", "-i", help="A file or other source of texts.")] = None,
    columns: Columns = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write: .npz, or .npy for one output; for sparse rows a folder."),
    ] = None,
    outputs: Annotated[str, typer.Option(help="Comma-separated output names.")] = "embedding",
    dim: Annotated[int | None, typer.Option(min=1, help="Truncate to this many leading dimensions.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts per batch.")] = 32,
    precision: Precision = "fp32",
    dtype: Annotated[
        Literal["sparse"] | None,
        typer.Option(help="sparse: MODEL is a sparse encoder. The default for the folder of one."),
    ] = None,
    role: Annotated[
        Literal["query", "document"], typer.Option(help="What the texts are to a sparse encoder.")
    ] = "document",
    active: Annotated[
        int | None, typer.Option(min=1, help="Keep only this many largest weights of each text (sparse encoder).")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, including the vectors unless --output is set.")
    ] = False,
) -> None:
    """Encode texts as vectors, or as weighted terms by a sparse encoder.

    Example: spectra encode runs/quickstart/model --texts "open a file" "close a socket" --dim 128
    """
    names = [name.strip() for name in outputs.split(",") if name.strip()]
    rows = [*(texts or []), *(more or [])]
    check_not_blank(*rows)
    mapping = shared_columns(columns)
    sparse = dtype == "sparse" or is_sparse(model)
    if sparse:
        check_sparse_output(output, names, dim)
    else:
        _check_dense(model, output, names, sparse_options=active is not None or role != "document")
    if source is not None:
        check_model_name(model)
        rows += read_texts(source, mapping)
    mapping.check()
    if not rows:
        raise UsageError('give texts: --texts "a" "b", or --input FILE.')
    if sparse:
        encode_sparse(
            model, rows, role=role, active=active, batch=batch, precision=precision, output=output, as_json=as_json,
            quarantined=mapping.quarantined,
        )  # fmt: skip
        return
    _encode_dense(
        model, rows, names, dim=dim, batch=batch, precision=precision, output=output, as_json=as_json,
        quarantined=mapping.quarantined,
    )  # fmt: skip


def _encode_dense(
    model: str,
    rows: list[str],
    names: list[str],
    *,
    dim: int | None,
    batch: int,
    precision: str,
    output: Path | None,
    as_json: bool,
    quarantined: int,
) -> None:
    """Encodes texts by a dense model; prints the vectors' first numbers, or writes them."""
    encoder = open_for(model, dim)
    _warn_unfitted(model, encoder.spec, names)
    from spectra_nsa.core.precision import autocast, resolve_precision
    from spectra_nsa.metrics.finite import check_finite
    from spectra_nsa.workflows.cut_texts import warn_cut

    warn_cut(encoder, rows, None, model)
    with autocast(encoder.device.type, resolve_precision(precision)):
        arrays = encoder.encode(rows, outputs=names, truncate_dim=dim, batch_size=batch)
    for array in arrays.values():
        check_finite(array, model)
    if output is not None:
        _write(output, arrays)
    if as_json:
        document = {"schema": 1, "model": model, "texts": rows, "output": str(output) if output else None}
        document["quarantined"] = quarantined
        vectors = {} if output else {name: array.tolist() for name, array in arrays.items()}
        print_json(document | {"shapes": {n: list(a.shape) for n, a in arrays.items()}, "outputs": vectors})
        return
    for name, array in arrays.items():
        target = f" → {output}" if output else ""
        print(f"{name}: {' × '.join(map(str, array.shape))} {array.dtype}{target}")
        if output is None:
            _show_first_rows(rows[:10], array)


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


def _check_dense(model: str, output: Path | None, names: list[str], *, sparse_options: bool) -> None:
    """Checks output and options of a dense model."""
    if output is not None:
        _check_output(output, len(names))
    _check_outputs(names)
    if sparse_options:
        raise UsageError(f"--active and --role are for sparse encoders, and {model} is not the folder of one.")


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


def open_for(model: str, dim: int | None) -> SavedModel | SpectraSentenceTransformer:
    """Opens a model to encode with, after checking that it has `dim` dimensions.

    Raises:
        UsageError: the prefix is longer than the vector.
        SpectraError: the model cannot be opened.
    """
    from spectra_nsa.models.open import find_model, open_encoder
    from spectra_nsa.models.size import model_spec

    files = find_model(model)
    if dim is not None:
        check_dim(model_spec(files), dim)
    return open_encoder(files)


def similarity_command(
    model: Annotated[str, typer.Argument(help="A model folder, or a Hub name of a BERT-architecture checkpoint.")],
    first: Annotated[str, typer.Argument(help="The first text.")],
    second: Annotated[str, typer.Argument(help="The second text.")],
    dim: Annotated[int | None, typer.Option(min=1, help="Truncate to this many leading dimensions.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the cosine similarity of two texts; for a sparse encoder the dot product of a query and a document.

    Example: spectra similarity runs/quickstart/model "open a file" "read the contents of a path"
    """
    check_not_blank(first, second)
    if is_sparse(model):
        check_sparse_output(None, ["embedding"], dim)
        sparse_similarity(model, first, second, as_json=as_json)
        return
    encoder = open_for(model, dim)
    from spectra_nsa.metrics.finite import check_finite
    from spectra_nsa.workflows.cut_texts import warn_cut

    warn_cut(encoder, [first, second], None, model)
    vectors = encoder.encode([first, second], truncate_dim=dim, normalize_embeddings=True)
    check_finite(vectors, model)
    value = float(vectors[0] @ vectors[1])
    if as_json:
        print_json({"schema": 1, "model": model, "texts": [first, second], "similarity": value})
    else:
        print(f"{value:.4f}")


def check_not_blank(*texts: str) -> None:
    """Checks that each text has something visible.

    Raises:
        UsageError: one has not.
    """
    for number, text in enumerate(texts, start=1):
        if is_blank(text):
            raise UsageError(f"text {number} is empty: it has no visible character.")


def check_dim(spec: ModelSpec, dim: int) -> None:
    """Checks that a prefix fits into the vector, and warns if the model was not trained for it.

    Raises:
        UsageError: the prefix is longer than the vector.
    """
    if dim > spec.projection_dim:
        raise UsageError(f"--dim {dim} exceeds the model's {spec.projection_dim} dimensions.")
    if dim not in (spec.semantic_dims or []):
        trained = ", ".join(map(str, spec.semantic_dims or []))
        print(
            f"spectra: warning: the model's Matryoshka dimensions are {trained}; {dim} is not one of them.",
            file=sys.stderr,
        )


def read_texts(source: str, columns: SharedColumns | None = None) -> list[str]:
    """Returns a source's texts: its `text` column, its lines if it is plain text, or the distinct positives."""
    return read_named_texts(source, columns)[0]


def read_named_texts(source: str, columns: SharedColumns | None = None) -> tuple[list[str], dict[str, str]]:
    """Returns the texts of `read_texts`, and the name of each text if the source has a `name` column."""
    from spectra_nsa.text.shared_columns import SharedColumns

    loaded = (columns or SharedColumns(None)).load(source)
    if loaded.quarantined:
        print(f"spectra: warning: {counted(loaded.quarantined, 'row')} of {source} quarantined.", file=sys.stderr)
    roles = {"pairs": ["positive"], "triplets": ["positive"], "scored": ["sentence1", "sentence2"]}
    texts = [text for name in roles.get(loaded.kind, ["text"]) for text in loaded.dataset[name]]
    named = "name" in loaded.dataset.column_names and len(texts) == len(loaded.dataset)
    names: dict[str, str] = {}
    for text, name in zip(texts, loaded.dataset["name"], strict=True) if named else ():
        names.setdefault(text, name)
    return (list(dict.fromkeys(texts)) if loaded.kind != "texts" else texts), names
