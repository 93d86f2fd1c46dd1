"""The residual hashing bridge: nested bits, and the way back (docs/model.md, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_nsa.encoder.gates import Starts

BITS = 256
WIDTHS = (64, 128, 256)  # each a prefix of the next, and a code of its own


class HashBridge(Starts):
    """bits = sign(A [semantic ; entity] − c), and a linear decoder from bits to the semantic vector.

    Until it is fitted on a corpus A is random: sign codes by random hyperplanes, a fallback that works everywhere and
    nowhere well.

    Args:
        size: D + E, width of what is hashed.
        semantic_size: D, what the decoder gives back.
    """

    def __init__(self, size: int, semantic_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(size, BITS)
        self.decode = nn.Linear(BITS, semantic_size, bias=False)
        self.sharpness = nn.Parameter(torch.empty(len(WIDTHS)))  # log scale of each width's similarity, in training
        self.start()

    def initial(self) -> dict[str, Tensor]:
        return {"sharpness": torch.zeros(len(WIDTHS))}

    def forward(self, hashed_BX: Tensor) -> Tensor:
        """The numbers whose signs are the bits, (B, 256) fp32; a narrower input leaves the last columns of A out."""
        weight = self.project.weight[:, : hashed_BX.shape[-1]]
        with torch.autocast(hashed_BX.device.type, enabled=False):
            return nn.functional.linear(hashed_BX.float(), weight.float(), self.project.bias.float())


def without_self(scores_NN: Tensor) -> Tensor:
    """log softmax of each row over the other texts."""
    self_NN = torch.eye(len(scores_NN), dtype=torch.bool, device=scores_NN.device)
    return scores_NN.masked_fill(self_NN, torch.finfo(scores_NN.dtype).min).log_softmax(-1)


def code_divergence(soft_NB: Tensor, sharpness_W: Tensor, target_ND: Tensor, temperature: float) -> Tensor:
    """KL from the distribution of the vectors' cosines to that of the relaxed codes, summed over the nested widths.

    Args:
        soft_NB: (N, 256) in [−1, 1].
        sharpness_W: the log scale of each width's similarity.
        target_ND: unit vectors, the teacher.
        temperature: of both distributions.
    """
    teacher_NN = without_self(target_ND @ target_ND.T / temperature)
    total = soft_NB.new_zeros(())
    for width, sharpness in zip(WIDTHS, sharpness_W, strict=True):
        code_NB = soft_NB[:, :width]
        student_NN = without_self(sharpness.exp() * (code_NB @ code_NB.T) / width / temperature)
        total = total + nn.functional.kl_div(student_NN, teacher_NN, log_target=True, reduction="batchmean")
    return total


def pack_bits(logits_BN: Tensor) -> Tensor:
    """The signs as packed bytes, most significant bit first: (B, N) to (B, N / 8) uint8."""
    bits = (logits_BN > 0).to(torch.int32).unflatten(-1, (-1, 8))  # ONNX Runtime adds up no bytes
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.int32, device=bits.device)
    return (bits * places).sum(-1).to(torch.uint8)
