"""The residual hashing bridge: nested bits, and the way back (docs/model.md, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_nsa.encoder.gates import Starts
from spectra_nsa.heads.kinds import BITS, WIDTHS

SPREAD = 0.02  # of a direction's numbers at the start
# The log scale of each width's similarity before training. 64 bits cannot follow a sharp distribution: started at 0
# they fit its peak and lose the ranks behind it.
SHARPNESS = (-1.25, -0.5, 0.0)


class Directions(nn.Linear, Starts):
    """A linear map whose rows start orthogonal, on the semantic numbers and on the entity's alike.

    Hyperplanes that share no direction split texts more evenly than independent ones (Ji et al. 2012, super-bit LSH).

    Args:
        size: D + E.
        semantic_size: D.
    """

    def __init__(self, size: int, semantic_size: int) -> None:
        super().__init__(size, BITS)
        self.sizes = (semantic_size, size - semantic_size)
        self.start()

    def initial(self) -> dict[str, Tensor]:
        blocks = [torch.cat([_orthogonal(size) for _ in range(-(-BITS // size))])[:BITS] for size in self.sizes if size]
        return {"weight": SPREAD * torch.cat(blocks, dim=1), "bias": torch.zeros(BITS)}


def _orthogonal(size: int) -> Tensor:
    """(min(size, bits), size): rows at right angles, their numbers of unit variance."""
    return torch.linalg.qr(torch.randn(size, min(size, BITS)))[0].T * size**0.5


class HashBridge(Starts):
    """bits = sign(A [semantic ; entity] − c), and a linear decoder from bits to the semantic vector.

    Until it is fitted A is random: sign codes by orthogonal hyperplanes, a fallback that works everywhere and nowhere
    well. Training fits it to its texts at the end, `spectra codes fit` to a corpus.

    Args:
        size: D + E, width of what is hashed.
        semantic_size: D, what the decoder gives back.
    """

    def __init__(self, size: int, semantic_size: int) -> None:
        super().__init__()
        self.project = Directions(size, semantic_size)
        self.decode = nn.Linear(BITS, semantic_size, bias=False)
        self.sharpness = nn.Parameter(torch.empty(len(WIDTHS)))  # log scale of each width's similarity, in training
        self.start()

    def initial(self) -> dict[str, Tensor]:
        return {"sharpness": torch.tensor(SHARPNESS)}

    def forward(self, hashed_BX: Tensor) -> Tensor:
        """The numbers whose signs are the bits, (B, 256) fp32; a narrower input leaves the last columns of A out."""
        weight = self.project.weight[:, : hashed_BX.shape[-1]]
        with torch.autocast(hashed_BX.device.type, enabled=False):
            return nn.functional.linear(hashed_BX.float(), weight.float(), self.project.bias.float())


def without_self(scores_NN: Tensor) -> Tensor:
    """log softmax of each row over the other texts."""
    self_NN = torch.eye(len(scores_NN), dtype=torch.bool, device=scores_NN.device)
    return scores_NN.masked_fill(self_NN, torch.finfo(scores_NN.dtype).min).log_softmax(-1)


def code_divergence(
    query_QB: Tensor, code_NB: Tensor, sharpness_W: Tensor, cosine_QN: Tensor, hidden_QN: Tensor, temperature: float
) -> Tensor:
    """KL from the distribution of the vectors' cosines to that of the relaxed codes, summed over the nested widths.

    Args:
        query_QB: (Q, 256) relaxed bits in [−1, 1].
        code_NB: (N, 256), those of the candidates.
        sharpness_W: the log scale of each width's similarity.
        cosine_QN: the teacher.
        hidden_QN: True where a query and a candidate are the same text, which counts in neither distribution.
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
    """The signs as packed bytes, most significant bit first: (B, N) to (B, N / 8) uint8."""
    bits = (logits_BN > 0).to(torch.int32).unflatten(-1, (-1, 8))  # ONNX Runtime adds up no bytes
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.int32, device=bits.device)
    return (bits * places).sum(-1).to(torch.uint8)
