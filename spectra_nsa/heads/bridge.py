"""Binary codes: nested bits and their decoder (docs/model.md, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_nsa.encoder.gates import SelfInitialized
from spectra_nsa.heads.kinds import BITS, WIDTHS

SPREAD = 0.02  # initial standard deviation of a direction's numbers
# Initial log scale of each width's similarity. 64 bits cannot follow a sharp distribution: from 0 they would fit its
# peak and lose the ranks behind it.
SHARPNESS = (-1.25, -0.5, 0.0)


class Directions(nn.Linear, SelfInitialized):
    """A linear map whose initial rows are orthogonal, over the semantic numbers and over the entity numbers.

    Hyperplanes that share no direction split texts more evenly than independent ones (Ji et al. 2012, super-bit LSH).

    Args:
        size: D + E.
        semantic_size: D.
    """

    def __init__(self, size: int, semantic_size: int) -> None:
        super().__init__(size, BITS)
        self.sizes = (semantic_size, size - semantic_size)
        self.initialize()

    def initial_values(self) -> dict[str, Tensor]:
        blocks = [torch.cat([_orthogonal(size) for _ in range(-(-BITS // size))])[:BITS] for size in self.sizes if size]
        return {"weight": SPREAD * torch.cat(blocks, dim=1), "bias": torch.zeros(BITS)}


def _orthogonal(size: int) -> Tensor:
    """Returns orthogonal rows of unit variance, (min(size, bits), size)."""
    return torch.linalg.qr(torch.randn(size, min(size, BITS)))[0].T * size**0.5


class HashBridge(SelfInitialized):
    """bits = sign(A [semantic ; entity] − c), and a linear decoder from bits to the semantic vector.

    Before it is fitted, A is random: sign codes by orthogonal hyperplanes, a fallback of low recall. Training fits A to
    its texts at the end, `spectra codes fit` to a corpus.

    Args:
        size: D + E, width of the input.
        semantic_size: D, width that the decoder returns.
    """

    def __init__(self, size: int, semantic_size: int) -> None:
        super().__init__()
        self.project = Directions(size, semantic_size)
        self.decode = nn.Linear(BITS, semantic_size, bias=False)
        self.sharpness = nn.Parameter(torch.empty(len(WIDTHS)))  # log scale of each width's similarity, in training
        self.initialize()

    def initial_values(self) -> dict[str, Tensor]:
        return {"sharpness": torch.tensor(SHARPNESS)}

    def forward(self, hashed_BX: Tensor) -> Tensor:
        """Returns the numbers whose signs are the bits, (B, 256) fp32; a narrower input skips the last columns of A."""
        weight = self.project.weight[:, : hashed_BX.shape[-1]]
        with torch.autocast(hashed_BX.device.type, enabled=False):
            return nn.functional.linear(hashed_BX.float(), weight.float(), self.project.bias.float())


def without_self(scores_NN: Tensor) -> Tensor:
    """Returns the log softmax of each row over the other texts."""
    self_NN = torch.eye(len(scores_NN), dtype=torch.bool, device=scores_NN.device)
    return scores_NN.masked_fill(self_NN, torch.finfo(scores_NN.dtype).min).log_softmax(-1)


def code_divergence(
    query_QB: Tensor, code_NB: Tensor, sharpness_W: Tensor, cosine_QN: Tensor, hidden_QN: Tensor, temperature: float
) -> Tensor:
    """Computes KL(vectors ‖ relaxed codes) between similarity distributions, summed over the nested widths.

    Args:
        query_QB: (Q, 256) relaxed bits in [−1, 1].
        code_NB: (N, 256), the relaxed bits of the candidates.
        sharpness_W: the log scale of each width's similarity.
        cosine_QN: cosines of the vectors, the target.
        hidden_QN: True if query and candidate are the same text; such pairs are in neither distribution.
        temperature: of both distributions.
    """
    least = torch.finfo(cosine_QN.dtype).min

    def distribution(scores_QN: Tensor) -> Tensor:
        return scores_QN.masked_fill(hidden_QN, least).log_softmax(-1)

    teacher_QN = distribution(cosine_QN / temperature)
    total = query_QB.new_zeros(())
    for width, sharpness in zip(WIDTHS, sharpness_W, strict=True):
        agreement_QN = query_QB[:, :width] @ code_NB[:, :width].T / width
        student_QN = distribution(sharpness.exp() * agreement_QN / temperature)
        total = total + nn.functional.kl_div(student_QN, teacher_QN, log_target=True, reduction="batchmean")
    return total


def pack_bits(logits_BN: Tensor) -> Tensor:
    """Packs signs into bytes, most significant bit first: (B, N) to (B, N / 8) uint8."""
    bits = (logits_BN > 0).to(torch.int32).unflatten(-1, (-1, 8))  # ONNX Runtime cannot sum bytes
    powers = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.int32, device=bits.device)
    return (bits * powers).sum(-1).to(torch.uint8)
