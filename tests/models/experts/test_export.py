"""Models with experts in an ONNX graph: texts that use experts which the traced text did not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spectra_nsa as sp
from spectra_nsa.encoder.experts.layer import ExpertFFN

OUTPUTS = ("embedding", "router_load", "router_margin")
KINDS: dict[str, dict[str, Any]] = {
    "token": {"top_k": 2},
    "slices": {"top_k": 2, "sliced": True, "shared": True},
    "text": {"router": "text"},
    "smear": {"router": "smear"},
}
DYNAMIC = ({0: torch.export.Dim("batch", min=1, max=512), 1: torch.export.Dim("length", min=2, max=48)},) * 2


class Graph(torch.nn.Module):
    """Outputs of a model as a tuple."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.spectra = model.spectra

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = self.spectra(input_ids, attention_mask, outputs=OUTPUTS)
        return tuple(out[name] for name in OUTPUTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_holds_experts_that_the_traced_text_did_not_use(
    make_bert: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = sp.warm_start(make_bert(num_hidden_layers=1), ffn="moe", experts={"count": 4, **KINDS[kind]})
    for layer in model.modules():
        if isinstance(layer, ExpertFFN):
            for weight in (*layer.experts(), *(() if layer.router.weight is None else (layer.router.weight,))):
                weight.data += torch.randn_like(weight)
    module = Graph(model.eval()).eval()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (120, 1), generator=generator) + torch.arange(12) // 6  # texts that differ on average
    mask = (torch.arange(12) < torch.randint(2, 13, (120, 1), generator=generator)).long()
    ids = ids * mask
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        module, (ids[:2, :3], mask[:2, :3]), str(path), input_names=["input_ids", "attention_mask"],
        dynamic_shapes=DYNAMIC, dynamo=True, verbose=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        traced, expected = module(ids[:2, :3], mask[:2, :3]), module(ids, mask)
    used, all_used = traced[1].sum(0) > 0, expected[1].sum(0) > 0
    assert all_used.sum() > used.sum(), "the test texts use further experts"
    found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    clear = expected[2].amin(1).numpy() > 1e-5
    assert clear.sum() > 100
    assert np.abs(expected[0].numpy() - found[0])[clear].max() < 1e-5
    assert np.array_equal(expected[1].numpy()[clear], found[1][clear])
    single = session.run(None, {"input_ids": ids[5:6].numpy(), "attention_mask": mask[5:6].numpy()})
    assert np.abs(expected[0][5].numpy() - single[0][0]).max() < 1e-5
