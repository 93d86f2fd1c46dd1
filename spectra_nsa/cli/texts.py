"""What the commands that encode texts share: opening the model, reading the texts, checks of both."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.files import expand_user
from spectra_nsa.core.strings import is_blank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spectra_nsa.heads.spec import ModelSpec
    from spectra_nsa.models.saved import SavedModel
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.runtime import Runtime
    from spectra_nsa.text.shared_columns import SharedColumns

    AnyEncoder = SavedModel | SpectraSentenceTransformer | Runtime


def open_for(model: str, dim: int | None, outputs: Sequence[str] | None = None) -> AnyEncoder:
    """Opens a model to encode with, after checking that it has `dim` dimensions; of an export alone, the export.

    Args:
        model: as the user named it.
        dim: the leading dimensions that are wanted; ``None`` for all.
        outputs: an export beside the model that has these outputs may stand for it; ``None``: the model itself.

    Raises:
        UsageError: the prefix is longer than the vector.
        SpectraError: the model cannot be opened, or the export is damaged.
    """
    from spectra_nsa.models.checks import has_weights
    from spectra_nsa.models.open import find_model, open_encoder
    from spectra_nsa.models.size import model_spec
    from spectra_nsa.runtime import Runtime
    from spectra_nsa.runtime.record import is_export
    from spectra_nsa.workflows.export.beside import export_beside

    folder = expand_user(model)
    if is_export(folder) and not has_weights(folder):
        return Runtime(folder)
    files = find_model(model, complete=False)
    if dim is not None:
        check_dim(model_spec(files), dim)
    exported = None if outputs is None else export_beside(files.folder, outputs, dim)
    return open_encoder(model) if exported is None else exported


def warn_quarantined(rows: int, source: str) -> None:
    """Says on standard error that rows of a source were dropped, and how to see them."""
    print(
        f"spectra: warning: {counted(rows, 'row')} of {source} quarantined. Where and why: spectra data preview "
        f"{source}",
        file=sys.stderr,
    )


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
        warn_quarantined(loaded.quarantined, source)
    roles = {"pairs": ["positive"], "triplets": ["positive"], "scored": ["sentence1", "sentence2"]}
    texts = [text for name in roles.get(loaded.kind, ["text"]) for text in loaded.dataset[name]]
    named = "name" in loaded.dataset.column_names and len(texts) == len(loaded.dataset)
    names: dict[str, str] = {}
    for text, name in zip(texts, loaded.dataset["name"], strict=True) if named else ():
        names.setdefault(text, name)
    return (list(dict.fromkeys(texts)) if loaded.kind != "texts" else texts), names
