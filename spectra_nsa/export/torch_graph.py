"""Graphs that torch runs without our package: programs of `torch.export`, and TorchScript."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectra_nsa.export.graph import Graph, example, sizes


def save_program(graph: Graph, path: Path, *, length: int | None = None) -> None:
    """Writes a program of `torch.export`, which `torch.export.load` opens.

    Args:
        graph: the model.
        path: the file.
        length: see `onnx_graph.trace`.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            graph.eval(), example(graph.vocab_size, length), dynamic_shapes=sizes(graph, length)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, path)


def save_script(graph: Graph, path: Path, *, length: int | None = None) -> None:
    """Writes a TorchScript program, which `torch.jit.load` opens, also from C++; see `save_program`."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.jit.trace(graph.eval(), example(graph.vocab_size, length), check_trace=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.jit.save(program, path)


class TorchEngine:
    """Runs a saved program, to check it.

    Args:
        path: ``.pt2`` or ``.ts``.
        names: of its outputs, in order.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        if path.suffix == ".pt2":
            self.program: Any = torch.export.load(path).module()
        else:
            self.program = torch.jit.load(path)
        self.names = tuple(names)

    def run(
        self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        with torch.no_grad():
            values = dict(
                zip(self.names, self.program(torch.from_numpy(ids_BT), torch.from_numpy(mask_BT)), strict=True)
            )
        return {name: values[name].numpy() for name in outputs}
