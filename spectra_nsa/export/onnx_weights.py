"""Smaller weights in an ONNX graph: 8 and 4 bits, and 16-bit floats. All take and change a `ModelProto`."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.errors import missing_extra

BLOCK = 32  # weights with a scale of their own, at 8 bits
FINE_BLOCK = 16  # at 4 bits
Features = Mapping[str, Any]  # inputs of a graph
_FLOAT_ONLY = ("ScatterND",)  # ONNX Runtime cannot add 16-bit floats with it
_TABLE = 1000  # rows from which a lookup table is worth shrinking


def int8(model: Any) -> Any:
    """Keeps the weights of matrix products and of lookup tables in 8 bits; states and sums stay in 32.

    Each block of 32 weights, and each row of a table, has a scale of its own. A text's vector does not depend on the
    others.
    """
    nbits = _nbits()
    config = nbits.DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, bits=8, accuracy_level=0)
    return _blocks(_small_tables(model), config)


def int4(model: Any) -> Any:
    """Keeps the weights of matrix products in 4 bits (HQQ, Badri and Shaji 2023) and lookup tables in 8."""
    nbits = _nbits()
    return _blocks(_small_tables(model), nbits.HQQWeightOnlyQuantConfig(block_size=FINE_BLOCK, bits=4, axis=1))


def int8_fast(model: Any) -> Any:
    """Multiplies in 8 bits: weights with a scale for each column, states with one for each batch.

    So a text's vector depends on the texts beside it.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx") from error
    import onnx

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        onnx.save(_small_tables(model), source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return onnx.load(target)


def int8_static(model: Any, samples: Sequence[Features]) -> Any:
    """Keeps weights in 8 bits and the states that they multiply in 16, in ranges found on sample texts.

    The graph has pairs of QuantizeLinear and DequantizeLinear (QDQ), which compilers for NPUs read. States in 8 bits,
    in ranges of this kind, would cost a small model its quality (MiniLM: cosine 0.93).

    Args:
        model: without operators of ONNX Runtime's own.
        samples: inputs by name.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx") from error
    import onnx

    class Samples(CalibrationDataReader):
        rows = iter(samples)

        def get_next(self) -> Features | None:
            return next(self.rows, None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        onnx.save(_small_tables(model), source)
        quantize_static(
            source,
            target,
            Samples(),
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt16,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return onnx.load(target)


def fp16(model: Any) -> Any:
    """Computes in 16-bit floats, with inputs and outputs as before."""
    try:
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx") from error
    with _quiet():
        kept = [*DEFAULT_OP_BLOCK_LIST, *_FLOAT_ONLY]
        return convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True, op_block_list=kept)


def _nbits() -> Any:
    try:
        from onnxruntime.quantization import matmul_nbits_quantizer
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx") from error
    return matmul_nbits_quantizer


def _blocks(model: Any, config: Any) -> Any:
    """Quantizes the weights of matrix products block by block."""
    with _quiet():
        quantizer = _nbits().MatMulNBitsQuantizer(model, algo_config=config)
        quantizer.process()
    return quantizer.model.model


def _plain_products(model: Any) -> None:
    """Gives products with a transposed weight a weight of their own: quantizers know no others.

    A masked LM multiplies by its token table, which is looked up too and so becomes smaller in both uses.
    """
    from onnx import numpy_helper

    graph = model.graph
    weights = {value.name: value for value in graph.initializer}
    for node in graph.node:
        options = {attribute.name: attribute.i or attribute.f for attribute in node.attribute}
        if node.op_type != "FusedMatMul" or len(node.input) != 2 or node.input[1] not in weights:
            continue
        if options.pop("alpha", 1) != 1 or {name for name, option in options.items() if option} != {"transB"}:
            continue
        name = f"{node.input[1]}_transposed_{node.output[0]}"
        transposed_DV = np.ascontiguousarray(numpy_helper.to_array(weights[node.input[1]]).T)
        graph.initializer.append(numpy_helper.from_array(transposed_DV, name))
        node.op_type, node.domain, node.input[1] = "MatMul", "", name
        del node.attribute[:]
    for node in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        transposed = numpy_helper.to_array(weights[node.input[0]]).transpose(node.attribute[0].ints)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(transposed), node.output[0]))
        graph.node.remove(node)


def _small_tables(model: Any) -> Any:
    """Keeps the rows of lookup tables as 8-bit integers, each row with a scale: gathered, then multiplied."""
    from onnx import helper, numpy_helper

    graph = model.graph
    del graph.value_info[:]  # quantizers trust these shapes, and some are of other operators
    _plain_products(model)
    weights = {value.name: value for value in graph.initializer}
    uses: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    for name, value in weights.items():
        readers = uses.get(name, [])
        if len(value.dims) != 2 or value.dims[0] < _TABLE or not all(_gathers_rows(node, name) for node in readers):
            continue
        table_VD = numpy_helper.to_array(value).astype(np.float32)
        scale_V1 = np.maximum(np.abs(table_VD).max(axis=1, keepdims=True), 1e-12) / 127
        rounded_VD = np.rint(table_VD / scale_V1).astype(np.int8)
        graph.initializer.remove(value)
        graph.initializer.append(numpy_helper.from_array(rounded_VD, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale_V1.astype(np.float32), f"{name}_scale"))
        for node in readers:
            _multiply_gathered(graph, node, name, helper)
    return model


def _gathers_rows(node: Any, table: str) -> bool:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return node.op_type == "Gather" and node.input[0] == table and axis == 0


def _multiply_gathered(graph: Any, node: Any, table: str, helper: Any) -> None:
    """Replaces a lookup of rows by a lookup of integers and one of scales."""
    from onnx import TensorProto

    out, ids = node.output[0], node.input[1]
    names = {part: f"{out}_{part}" for part in ("integers", "floats", "scale")}
    new = [
        helper.make_node("Gather", [f"{table}_int8", ids], [names["integers"]], axis=0),
        helper.make_node("Cast", [names["integers"]], [names["floats"]], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{table}_scale", ids], [names["scale"]], axis=0),
        helper.make_node("Mul", [names["floats"], names["scale"]], [out]),
    ]
    at = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, part in enumerate(new):
        graph.node.insert(at + offset, part)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the log of the quantizers, which has a line for each node, and their warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
