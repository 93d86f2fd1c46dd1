"""The export that lies beside a model, used where it starts faster than the model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.files import read_json_object
from spectra_nsa.models.checks import model_checksum
from spectra_nsa.runtime import Runtime
from spectra_nsa.runtime.record import RECORD, is_export, read_export

FORMAT = "onnx"  # the exact one


def export_beside(
    folder: Path, outputs: Sequence[str], dim: int | None = None, *, when: Callable[[Runtime], bool] = lambda _: True
) -> Runtime | None:
    """Opens the exact export that lies beside a model, and says so.

    Args:
        folder: of the model.
        outputs: what it has to compute.
        dim: the leading dimensions that are wanted; ``None`` for all.
        when: a further condition.

    Returns:
        the encoder; ``None`` if there is no such export, it is of other weights or prompts, ONNX Runtime is not
        installed, or `when` says no.

    Raises:
        SpectraError: the export is damaged.
    """
    if not is_export(folder) or find_spec("onnxruntime") is None:
        return None
    try:
        facts = read_export(folder, FORMAT)
    except UsageError:  # only formats that change the vectors, or of other programs
        return None
    if facts.length is not None or not set(outputs) <= facts.outputs.keys():
        return None
    if dim is not None and dim > facts.dim:
        return None
    if read_json_object(folder / RECORD).get("model_sha256") != model_checksum(folder):
        return None
    exported = Runtime(folder, format=FORMAT)
    if not when(exported):
        return None
    print(f"spectra: using the export {facts.file}", file=sys.stderr)
    return exported
