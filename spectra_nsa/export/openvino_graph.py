"""OpenVINO graphs, converted from ONNX."""

from __future__ import annotations

from pathlib import Path

from spectra_nsa.core.errors import missing_extra


def save_openvino(source: Path, path: Path) -> None:
    """Writes an ONNX file as an OpenVINO model: ``NAME.xml`` and ``NAME.bin``, weights in 32 bits.

    Args:
        source: the ONNX file, without operators of ONNX Runtime's own.
        path: the ``.xml`` file.

    Raises:
        SpectraError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("openvino", "openvino") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(openvino.convert_model(source), path, compress_to_fp16=False)
