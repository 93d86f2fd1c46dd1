"""`spectra encode` and `spectra similarity`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectra_nsa.cli.options import Columns, Precision, say_loading, shared_columns
from spectra_nsa.core.errors import SpectraError, UsageError

if TYPE_CHECKING:
    from spectra_nsa.heads.spec import ModelSpec
    from spectra_nsa.text.shared_columns import SharedColumns


def encode_command(
    model: Annotated[str, typer.Argument(help="A model folder, or a Hub name of a BERT-architecture checkpoint.")],
    texts: Annotated[
        list[str] | None, typer.Option("--texts", "-t", help="A text; may be given several times.")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="More texts.")] = None,
    source: Annotated[str | None, typer.Option("--input", "-i", help="A file or other source of texts.")] = None,
    columns: Columns = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write .npz (or .npy for one output).")] = None,
    outputs: Annotated[str, typer.Option(help="Named outputs, with commas between.")] = "embedding",
    dim: Annotated[int | None, typer.Option(min=1, help="Shorten to a Matryoshka prefix.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts a batch.")] = 32,
    precision: Precision = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, vectors included.")] = False,
) -> None:
    """Turn texts into vectors.

    Example: spectra encode runs/quickstart/model --texts "open a file" "close a socket" --dim 128
    """
    names = [name.strip() for name in outputs.split(",") if name.strip()]
    rows = [*(texts or []), *(more or [])]
    own = shared_columns(columns)
    if source is not None:
        rows += read_texts(source, own)
    own.check()
    if not rows:
        raise UsageError('give texts: --texts "a" "b", or --input FILE.')
    if output is not None:
        _check_output(output, len(names))
    say_loading(model)
    import numpy as np

    from spectra_nsa.core.precision import autocast, resolve_precision
    from spectra_nsa.models.open import open_encoder

    encoder = open_encoder(model)
    check_dim(encoder.spec, dim)
    with autocast(encoder.device.type, resolve_precision(precision)):
        arrays = encoder.encode(rows, outputs=names, truncate_dim=dim, batch_size=batch)
    if output is not None:
        from spectra_nsa.core.files import atomic_write

        with atomic_write(output, "wb") as file:
            if output.suffix == ".npy":
                np.save(file, next(iter(arrays.values())))
            else:
                np.savez(file, **arrays)
    if as_json:
        document = {"schema": 1, "model": model, "texts": rows, "output": str(output) if output else None}
        vectors = {} if output else {name: array.tolist() for name, array in arrays.items()}
        print(json.dumps(document | {"shapes": {n: list(a.shape) for n, a in arrays.items()}, "outputs": vectors}))
        return
    for name, array in arrays.items():
        where = f" → {output}" if output else ""
        print(f"{name}: {' × '.join(map(str, array.shape))} {array.dtype}{where}")
        if output is None:
            for text, row in zip(rows[:10], array, strict=False):
                values = np.atleast_1d(row)
                head = " ".join(f"{value:+.4f}" if array.dtype.kind == "f" else str(value) for value in values[:6])
                print(f"  {head}{' …' if len(values) > 6 else ''}  {text[:60]!r}")


def _check_output(output: Path, count: int) -> None:
    """Refuses, before any work, a file that cannot be written as what its name says."""
    if output.is_dir():
        raise UsageError(f"{output} is a folder: name a file, such as {output / 'vectors.npz'}.")
    if output.suffix not in (".npz", ".npy") or (output.suffix == ".npy" and count > 1):
        raise UsageError(f"{output}: name it .npz, or .npy where there is one output; {count} are asked for.")


def similarity_command(
    model: Annotated[str, typer.Argument(help="A model folder, or a Hub name of a BERT-architecture checkpoint.")],
    first: Annotated[str, typer.Argument(help="A text.")],
    second: Annotated[str, typer.Argument(help="Another.")],
    dim: Annotated[int | None, typer.Option(min=1, help="Shorten to a Matryoshka prefix.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the cosine similarity of two texts.

    Example: spectra similarity runs/quickstart/model "open a file" "read the contents of a path"
    """
    say_loading(model)
    from spectra_nsa.models.open import open_encoder

    encoder = open_encoder(model)
    check_dim(encoder.spec, dim)
    vectors = encoder.encode([first, second], truncate_dim=dim, normalize_embeddings=True)
    value = float(vectors[0] @ vectors[1])
    if as_json:
        print(json.dumps({"schema": 1, "model": model, "texts": [first, second], "similarity": value}))
    else:
        print(f"{value:.4f}")


def check_dim(spec: ModelSpec, dim: int | None) -> None:
    """Refuses a prefix longer than the vector, and warns about one that the model was not trained for.

    Raises:
        UsageError: see above.
    """
    if dim is None:
        return
    if dim > spec.projection_dim:
        raise UsageError(f"--dim {dim} is more than the model's {spec.projection_dim} numbers.")
    if dim not in (spec.semantic_dims or []):
        trained = ", ".join(map(str, spec.semantic_dims or []))
        print(f"spectra: warning: the model's Matryoshka sizes are {trained}; {dim} is none of them.", file=sys.stderr)


def read_texts(source: str, columns: SharedColumns | None = None) -> list[str]:
    """Texts of a source: the `text` column, or each line of a .txt file, or every positive of pairs, once."""
    return read_named_texts(source, columns)[0]


def read_named_texts(source: str, columns: SharedColumns | None = None) -> tuple[list[str], dict[str, str]]:
    """`read_texts`, and what each text is called, where the source has a `name` column."""
    if source.endswith(".txt"):
        try:
            return [line for line in Path(source).read_text(encoding="utf-8").splitlines() if line.strip()], {}
        except (OSError, UnicodeDecodeError) as error:
            raise SpectraError(f"{source} cannot be read as UTF-8 text: {error}") from error
    from spectra_nsa.text.shared_columns import SharedColumns

    found = (columns or SharedColumns(None)).load(source)
    if found.quarantined:
        print(f"spectra: warning: {found.quarantined} broken rows of {source} were left out.", file=sys.stderr)
    roles = {"pairs": ["positive"], "triplets": ["positive"], "scored": ["sentence1", "sentence2"]}
    texts = [text for name in roles.get(found.kind, ["text"]) for text in found.dataset[name]]
    named = "name" in found.dataset.column_names and len(texts) == len(found.dataset)
    names = dict(zip(texts, found.dataset["name"], strict=True)) if named else {}
    return (list(dict.fromkeys(texts)) if found.kind != "texts" else texts), names
