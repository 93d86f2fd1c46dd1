"""The export that lies beside a model, used where it starts faster than the model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import read_json_object
from spectra_nsa.export.formats import FORMATS
from spectra_nsa.models.checks import model_checksum
from spectra_nsa.models.open import ModelFolder
from spectra_nsa.models.size import model_spec
from spectra_nsa.runtime import Runtime
from spectra_nsa.runtime.record import RECORD, ExportFacts, is_export, read_export

FORMAT = "onnx"  # the exact one


def export_beside(
    folder: Path, outputs: Sequence[str], dim: int | None = None, *, when: Callable[[Runtime], bool] = lambda _: True
) -> Runtime | None:
    """Opens the exact export that lies beside a model, and says so.

    Args:
        folder: of the model.
        outputs: what it has to compute.
        dim: the leading dimensions that are wanted; ``None`` for all that the model has.
        when: a further condition.

    Returns:
        the encoder; ``None`` if there is no such export, it is of other weights or prompts or is damaged, ONNX Runtime
        is not installed, or `when` says no.
    """
    if not is_export(folder) or find_spec("onnxruntime") is None:
        return None
    if not (graph := folder / FORMATS[FORMAT].file).is_file() or graph.is_symlink():  # not downloaded, or in a cache
        return None
    try:
        facts = read_export(folder, FORMAT)
        if not _fits(facts, folder, outputs, dim):
            return None
        exported = Runtime(folder, format=FORMAT)
    except UsageError:  # only formats that change the vectors, or of other programs
        return None
    except SpectraError as error:
        print(f"spectra: warning: the export beside the model is not used: {error}", file=sys.stderr)
        return None
    if not when(exported):
        return None
    print(f"spectra: using the export {facts.file}", file=sys.stderr)
    return exported


def _fits(facts: ExportFacts, folder: Path, outputs: Sequence[str], dim: int | None) -> bool:
    """Returns whether an export gives what the model gives."""
    if facts.sparse or facts.length is not None or not set(outputs) <= facts.outputs.keys():
        return False
    spec = model_spec(ModelFolder(name=str(folder), folder=folder, kind="spectra"))
    if (spec.projection_dim if dim is None else dim) > facts.dim:
        return False
    return bool(read_json_object(folder / RECORD).get("model_sha256") == model_checksum(folder))
