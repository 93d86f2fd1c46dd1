"""ONNX graphs of models: traced, named as other tools expect, and fused for ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from spectra_nsa.core.errors import missing_extra
from spectra_nsa.export.graph import INPUTS, Graph, example, sizes
from spectra_nsa.heads.kinds import graph_name

OPSET = 18
_LARGEST = 2**31 - 2**20  # bytes of a file without external data


def trace(graph: Graph, *, length: int | None = None) -> Any:
    """Returns the ONNX model of a graph, an `onnx_ir.Model`.

    Args:
        graph: the model.
        length: the length of all texts, for one text at a time; ``None`` for any number of texts of any length.

    Raises:
        SpectraError: onnx or onnxscript is not installed.
    """
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise missing_extra("onnxscript", "onnx") from error
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            example(graph.vocab_size, length),
            input_names=list(INPUTS),
            dynamic_shapes=sizes(graph, length),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: Any = program.model
    _name_outputs(model, [graph_name(name) for name in graph.names])
    model.graph.name = "spectra"
    return model


def fused(model: Any) -> Any:
    """Returns a copy with the fused operators of ONNX Runtime for attention, GELU and normalization."""
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    with _quiet():
        copy, _ = optimize_for_ort(model.clone())
    return copy


def save(model: Any, path: Path) -> None:
    """Writes a model; weights above 2 GB go to a second file, `NAME.onnx_data`."""
    import onnx_ir

    path.parent.mkdir(parents=True, exist_ok=True)
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    onnx_ir.save(model, path, external_data=f"{path.name}_data" if size > _LARGEST else None)


def _name_outputs(model: Any, names: Sequence[str]) -> None:
    """Names the outputs; values inside that have such a name get another."""
    taken = set(names)
    for node in model.graph:
        for value in node.outputs:
            if value.name in taken:
                value.name = f"{value.name}_value"
    for value in list(model.graph.initializers.values()):
        if value.name in taken:
            value.name = f"{value.name}_weight"
    for value, name in zip(model.graph.outputs, names, strict=True):
        value.name = name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what torch's exporter prints and warns of: libraries that we do not use, and its own deprecations."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
