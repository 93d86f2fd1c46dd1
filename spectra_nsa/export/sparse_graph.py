"""A sparse encoder as a graph: token ids in; weights of all terms out, and the strongest terms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.export.graph import Graph
from spectra_nsa.heads.kinds import SPARSE_OUTPUTS
from spectra_nsa.models.sparse.query_side import FALLBACK_WEIGHT
from spectra_nsa.tokens.limits import learned_positions

STRONGEST = 256  # terms by default


class SparseGraph(Graph):
    """The weights of all terms (B, V), and the ids and weights of the K strongest (B, K), the largest first.

    A text without any term keeps the strongest of its own tokens, as in the model. Places after the last term of a text
    have weight 0.

    Args:
        model: a sparse encoder, in evaluation mode.
        strongest: K.

    Raises:
        SpectraError: documents do not pass a masked LM with a maximum over tokens.
    """

    def __init__(self, model: Any, strongest: int = STRONGEST) -> None:
        super().__init__()
        pooling = model.modules_of("document")[-1]
        if model.head("document") is None:
            raise SpectraError("only a masked LM with SPLADE pooling (maximum) can be written as a graph.")
        self.model = model.masked_lm("document")
        self.logs = 2 if pooling.activation_function == "log1p_relu" else 1
        self.vocab_size = len(model.head("document").weight)
        self.longest = learned_positions(self.model) or 2**20
        self.most = model.max_active_dims
        self.strongest = min(strongest, self.vocab_size, self.most or strongest)
        self.names = SPARSE_OUTPUTS
        is_special = torch.zeros(self.vocab_size, dtype=torch.bool)
        is_special[model.tokenizer.all_special_ids] = True
        self.register_buffer("is_special_V", is_special, persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        is_token_BT = attention_mask.bool()
        logits_BTV = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).logits
        largest_BV = logits_BTV.float().masked_fill(~is_token_BT.unsqueeze(2), -torch.inf).amax(1)
        weights_BV = largest_BV.relu()
        for _ in range(self.logs):
            weights_BV = weights_BV.log1p()
        weights_BV = self._fill_empty(weights_BV, largest_BV, input_ids, is_token_BT)
        if self.most is not None:
            values_BM, ids_BM = weights_BV.topk(min(self.most, self.vocab_size))
            weights_BV = torch.zeros_like(weights_BV).scatter(1, ids_BM, values_BM)
        values_BK, ids_BK = weights_BV.topk(self.strongest)
        return weights_BV, ids_BK, values_BK

    def _fill_empty(self, weights_BV: Tensor, largest_BV: Tensor, ids_BT: Tensor, is_token_BT: Tensor) -> Tensor:
        """Gives a text without any term the strongest of its own tokens; special tokens do not count."""
        special: Any = self.is_special_V
        is_own_BT = is_token_BT & ~special[ids_BT]
        own_BT = largest_BV.gather(1, ids_BT).masked_fill(~is_own_BT, -torch.inf)
        best_B1 = ids_BT.gather(1, own_BT.argmax(1, keepdim=True))
        fill_B1 = (weights_BV.amax(1, keepdim=True) <= 0) & is_own_BT.any(1, keepdim=True)
        value_B1 = torch.where(fill_B1, FALLBACK_WEIGHT, weights_BV.gather(1, best_B1))
        return weights_BV.scatter(1, best_B1, value_B1)
