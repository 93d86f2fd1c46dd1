"""The experts' computation: token states and choices in, mixed states out. Pure functions, one for each way.

All compute y_t = Σ_j w_tj · FFN_{e_tj}(x_t) over the k chosen experts. `plain` is the reference. `loop` sorts the
tokens by expert, so that each expert runs once on a contiguous part; it is the fastest on a CPU. `grouped` gives all
experts to one grouped product on a GPU. `traceable` is a fixed loop over all experts, which an exporter can follow;
where each text has one expert, `gathered` is shorter.

Legend: N tokens, D their width, K choices of each, E experts, F an expert's inner width, R = N · K rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor, "Weights"], Tensor]


@dataclass(frozen=True)
class Weights:
    """The weights of all experts of a layer.

    Attributes:
        up_EFD: what each expert multiplies a state by; of a gated one gate and up, (E, 2F, D).
        up_bias_EF: its bias; ``None`` for none.
        down_EDF: the way back.
        down_bias_ED: its bias; ``None`` for none.
        activation: between the two.
        gated: whether the first half of the inner states gates the second.
        dropout: on the inner states.
    """

    up_EFD: Tensor
    up_bias_EF: Tensor | None
    down_EDF: Tensor
    down_bias_ED: Tensor | None
    activation: Callable[[Tensor], Tensor]
    gated: bool = False
    dropout: float = 0.0

    def inner(self, x_RF: Tensor) -> Tensor:
        """Returns an expert's inner states from the product with its first matrix."""
        if self.gated:
            gate_RF, up_RF = x_RF.chunk(2, dim=-1)
            inner_RF = self.activation(gate_RF) * up_RF
        else:
            inner_RF = self.activation(x_RF)
        return F.dropout(inner_RF, self.dropout) if self.dropout else inner_RF

    def experts(self) -> list[Callable[[Tensor], Tensor]]:
        """Returns each expert as a function of states (R, D)."""
        # Unbound once: indexing a stacked weight makes its whole gradient anew for each expert.
        ups, downs = self.up_EFD.unbind(0), self.down_EDF.unbind(0)
        up_biases = [None] * len(ups) if self.up_bias_EF is None else self.up_bias_EF.unbind(0)
        down_biases = [None] * len(ups) if self.down_bias_ED is None else self.down_bias_ED.unbind(0)

        def expert(index: int) -> Callable[[Tensor], Tensor]:
            def run(x_RD: Tensor) -> Tensor:
                inner_RF = self.inner(F.linear(x_RD, ups[index], up_biases[index]))
                return F.linear(inner_RF, downs[index], down_biases[index])

            return run

        return [expert(index) for index in range(len(ups))]


def plain(x_ND: Tensor, chosen_NK: Tensor, weight_NK: Tensor, weights: Weights) -> Tensor:
    """Runs every expert on all tokens and adds up what each token has chosen: the reference."""
    y_ND = torch.zeros_like(x_ND)
    for index, expert in enumerate(weights.experts()):
        share_N = (weight_NK * (chosen_NK == index)).sum(1)
        y_ND = y_ND + (share_N[:, None] * expert(x_ND)).to(x_ND.dtype)
    return y_ND


def loop(x_ND: Tensor, chosen_NK: Tensor, weight_NK: Tensor, weights: Weights) -> Tensor:
    """Runs each expert once on its own tokens, which are sorted by expert."""
    order_R, counts_E = _sorted(chosen_NK, len(weights.up_EFD))
    rows_RD = x_ND.index_select(0, order_R // chosen_NK.shape[1])
    parts = rows_RD.split(counts_E.tolist())
    done = [expert(part) for expert, part in zip(weights.experts(), parts, strict=True) if len(part)]
    return _mixed(torch.cat(done) if done else rows_RD, order_R, weight_NK)


def grouped(x_ND: Tensor, chosen_NK: Tensor, weight_NK: Tensor, weights: Weights) -> Tensor:
    """Runs all experts in one grouped product each way, without waiting for the counts of their tokens."""
    order_R, counts_E = _sorted(chosen_NK, len(weights.up_EFD))
    dtype = _dtype(x_ND)
    rows_RD = x_ND.index_select(0, order_R // chosen_NK.shape[1]).to(dtype)
    ends_E = counts_E.cumsum(0).to(torch.int32)
    experts_R = chosen_NK.flatten()[order_R]
    with torch.autocast(x_ND.device.type, enabled=False):
        up_RF = F.grouped_mm(rows_RD, weights.up_EFD.to(dtype).transpose(1, 2), offs=ends_E)
        if weights.up_bias_EF is not None:
            up_RF = up_RF + weights.up_bias_EF.to(dtype)[experts_R]
        inner_RF = weights.inner(up_RF).contiguous()
        done_RD = F.grouped_mm(inner_RF, weights.down_EDF.to(dtype).transpose(1, 2), offs=ends_E)
        if weights.down_bias_ED is not None:
            done_RD = done_RD + weights.down_bias_ED.to(dtype)[experts_R]
    return _mixed(done_RD, order_R, weight_NK)


def traceable(x_ND: Tensor, chosen_NK: Tensor, weight_NK: Tensor, weights: Weights) -> Tensor:
    """Runs every expert on the tokens that have chosen it, in a loop whose length is fixed: for exporting."""
    y_ND = torch.zeros_like(x_ND)
    for index, expert in enumerate(weights.experts()):
        chosen_NK1 = chosen_NK == index
        rows_M = chosen_NK1.any(1).nonzero().squeeze(1)
        share_M1 = (weight_NK * chosen_NK1).sum(1)[rows_M, None]
        y_ND = y_ND.index_add(0, rows_M, (share_M1 * expert(x_ND[rows_M])).to(y_ND.dtype))
    return y_ND


def averaged(x_BTD: Tensor, gate_BE: Tensor, weights: Weights) -> Tensor:
    """Runs one expert for each text, the mean of all by its gate (SMEAR, Muqeeth et al. 2023): (B, T, D)."""
    gate_BE = gate_BE.to(weights.up_EFD.dtype)
    return _one_each(x_BTD, weights, lambda weight: torch.tensordot(gate_BE, weight, dims=1))


def gathered(x_BTD: Tensor, expert_B: Tensor, weights: Weights) -> Tensor:
    """Runs one expert for each text, whose weights are gathered, (B, T, D): for exporting."""
    return _one_each(x_BTD, weights, lambda weight: weight.index_select(0, expert_B))


def _one_each(x_BTD: Tensor, weights: Weights, of_texts: Callable[[Tensor], Tensor]) -> Tensor:
    """Runs a network for each text, whose weights (B, …) a function makes from those of all experts (E, …)."""
    up_BTF = x_BTD @ of_texts(weights.up_EFD).transpose(1, 2)
    if weights.up_bias_EF is not None:
        up_BTF = up_BTF + of_texts(weights.up_bias_EF)[:, None]
    y_BTD = weights.inner(up_BTF) @ of_texts(weights.down_EDF).transpose(1, 2)
    if weights.down_bias_ED is not None:
        y_BTD = y_BTD + of_texts(weights.down_bias_ED)[:, None]
    return y_BTD


def choose_kernel(x_ND: Tensor, weights: Weights) -> Kernel:
    """Returns the way to compute on this device, in this number format."""
    if torch.compiler.is_compiling():
        return traceable
    if x_ND.device.type == "cuda" and _dtype(x_ND) == torch.bfloat16 and _aligned(weights):
        major, _ = torch.cuda.get_device_capability(x_ND.device)
        return grouped if major >= 8 else loop
    return loop


def _aligned(weights: Weights) -> bool:
    """Returns whether the widths are multiples of 8, as a grouped product asks for."""
    return all(size % 8 == 0 for weight in (weights.up_EFD, weights.down_EDF) for size in weight.shape[1:])


def _dtype(x: Tensor) -> torch.dtype:
    """Returns the number format that a linear layer would compute in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _sorted(chosen_NK: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Returns the order of the rows by expert, ties as they come, and the rows of each expert."""
    flat_R = chosen_NK.flatten()
    return flat_R.argsort(stable=True), torch.bincount(flat_R, minlength=experts)


def _mixed(done_RD: Tensor, order_R: Tensor, weight_NK: Tensor) -> Tensor:
    """Returns the weighted sum over each token's choices of rows that are sorted by expert: (N, D)."""
    place_R = torch.empty_like(order_R)
    place_R[order_R] = torch.arange(len(order_R), device=order_R.device)
    tokens, choices = weight_NK.shape
    done_NKD = done_RD.index_select(0, place_R).view(tokens, choices, -1)
    return (done_NKD * weight_NK.to(done_RD.dtype)[..., None]).sum(1)
