"""What the commands that encode texts share: opening the model, reading the texts, checks of both."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.strings import is_blank

if TYPE_CHECKING:
    from spectra_nsa.heads.spec import ModelSpec
    from spectra_nsa.models.saved import SavedModel
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.runtime import Runtime
    from spectra_nsa.text.shared_columns import SharedColumns


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


def export_beside(model: str, outputs: Sequence[str], dim: int | None) -> Runtime | None:
    """Opens the exact export that lies beside a model, which starts faster, and says so.

    Args:
        model: as the user named it.
        outputs: what it has to compute.
        dim: the leading dimensions that are wanted; ``None`` for all.

    Returns:
        the encoder; ``None`` if there is no such export, the weights are newer, or ONNX Runtime is not installed.

    Raises:
        SpectraError: the export is damaged.
    """
    from importlib.util import find_spec

    from spectra_nsa.core.files import expand_user
    from spectra_nsa.runtime.record import RECORD, is_export, read_export

    folder = expand_user(model)
    weights = folder / "model.safetensors"
    if not is_export(folder) or find_spec("onnxruntime") is None:
        return None
    if weights.is_file() and weights.stat().st_mtime > (folder / RECORD).stat().st_mtime:
        return None
    try:
        facts = read_export(folder, "onnx")
    except UsageError:  # only formats that change the vectors, or of other programs
        return None
    if facts.length is not None or not set(outputs) <= facts.outputs.keys() or (dim or 0) > facts.dim:
        return None
    from spectra_nsa.runtime import Runtime

    print(f"spectra: using the export {facts.file}", file=sys.stderr)
    return Runtime(folder, format="onnx")


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
