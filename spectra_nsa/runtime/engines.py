"""What runs a graph: ONNX Runtime, or OpenVINO if it is installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError, UsageError, missing_extra, opening, unknown_name
from spectra_nsa.heads.kinds import graph_name
from spectra_nsa.runtime.record import ExportFacts


class Engine(Protocol):
    """Computes outputs of a graph."""

    def run(
        self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Returns the named outputs (B, …)."""


def open_engine(facts: ExportFacts, threads: int | None = None, precision: str = "fp32") -> Engine:
    """Opens the graph of a format.

    Args:
        facts: the format.
        threads: ``None`` for one on each core that this process may use.
        precision: ``"bf16"`` lets OpenVINO compute in it, see `Runtime`.

    Raises:
        UsageError: the format cannot be computed in this precision.
        SpectraError: the graph cannot be opened, or what runs it is not installed.
    """
    if precision not in ("fp32", "bf16"):
        raise unknown_name("precision", precision, ("fp32", "bf16"))
    if precision == "bf16" and facts.file.suffix != ".xml":
        raise UsageError(f"precision bf16 is for the format openvino: {facts.name} has the precision of its file.")
    threads = usable_cores() if threads is None else threads
    if facts.file.suffix == ".onnx":
        return OnnxEngine(facts, threads)
    if facts.file.suffix == ".xml":
        return OpenVinoEngine(facts, threads, precision)
    raise SpectraError(f"{facts.file} needs torch: open it with torch.export.load or torch.jit.load.")


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OnnxEngine:
    """A graph in ONNX Runtime, on the CPU. Only what the requested outputs need is computed."""

    def __init__(self, facts: ExportFacts, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_extra("onnxruntime", "runtime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # keeps a plan for each shape, of which there are many
        with opening(facts.file):
            self.session = onnxruntime.InferenceSession(str(facts.file), options, providers=["CPUExecutionProvider"])
        self.part = onnxruntime.RunOptions()
        self.part.only_execute_path_to_fetches = True

    def run(
        self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        names = [graph_name(name) for name in outputs]
        values = self.session.run(names, {"input_ids": ids_BT, "attention_mask": mask_BT}, self.part)
        return dict(zip(outputs, values, strict=True))


class OpenVinoEngine:
    """A graph in OpenVINO, on the CPU."""

    def __init__(self, facts: ExportFacts, threads: int, precision: str = "fp32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise missing_extra("openvino", "openvino") from error
        with opening(facts.file):
            hint = {"fp32": "f32", "bf16": "bf16"}[precision]
            settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
            self.model = openvino.Core().compile_model(str(facts.file), "CPU", settings)

    def run(
        self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        values = self.model({"input_ids": ids_BT, "attention_mask": mask_BT})
        return {name: np.array(values[graph_name(name)]) for name in outputs}
