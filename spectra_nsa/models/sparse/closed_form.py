"""A vocabulary head in closed form, for encoders without a masked-LM head.

A sentence encoder's last state of a token still tells which token it is, and what it means here. A ridge regression
from the states to the tokens' own input embeddings, x ↦ M x + c, minimizes

    Σ_tokens ‖M x_t + c − e(token_t)‖² + λ ‖M‖²,

where e(v) is the centered input embedding of v at unit length. With p = (M x + c) / ‖M x + c‖, the logit of term v is
√idf(v) · e(v) · p: large for the token itself and for terms with a like embedding, and larger for rare ones. Masked LMs
have the layers for that: M and c go into the dense layer, moved to where GELU is nearly linear, its norm makes the
length 1, and the decoder's rows are √idf(v) e(v). The threshold and the scale follow from `calibrate`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.models.encoding.loop import batches, shortest_first
from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
from spectra_nsa.models.sparse.head import VocabularyHead

TOKENS = 400_000  # read at most; the regression has D² unknowns
_RIDGE = 1e-3  # λ, as a share of the states' mean squared length
_MIDDLE = 3.0  # GELU is nearly linear around it
_SPREAD = 0.6  # the standard deviation around it
_NEVER = -1e4  # the bias of tokens that are no terms


@dataclass(frozen=True, kw_only=True)
class HeadFit:
    """How well a closed-form head knows its tokens.

    Attributes:
        tokens: those of the regression.
        recovered: the share of held-out tokens that the head ranks first at their own place, before IDF.
    """

    tokens: int
    recovered: float


@torch.no_grad()
def fit_closed_form_head(model: SpectraSparseEncoder, texts: Sequence[str], *, precision: str = "fp32") -> HeadFit:
    """Replaces the vocabulary head of a model.

    Args:
        model: changed in place; its decoder is no longer tied to the input embedding.
        texts: at least a few hundred of the texts that it will encode.
        precision: the number format of the encoder (see `resolve_precision`); the regression is computed in fp64.

    Raises:
        SpectraError: there are too few tokens, or the model has no linear decoder.
    """
    head = model.head("document")
    if head is None:
        raise SpectraError(
            "a closed-form head needs a masked LM whose last step is a linear layer over the vocabulary."
        )
    training = model.training
    model.eval()
    dense, norm = _layers(head)
    untie_decoder(head)
    targets_VD = _embeddings(head)
    statistics = _Statistics(head.weight.shape[1], head.weight.device)
    held_out: list[tuple[Tensor, Tensor]] = []
    for number, (states_ND, ids_N) in enumerate(_token_states(model, head, texts, precision)):
        if number % 50 == 1:
            held_out.append((states_ND, ids_N))
        else:
            statistics.add(states_ND, targets_VD[ids_N])
    if statistics.count < 10 * head.weight.shape[1]:
        raise SpectraError(
            f"a closed-form head needs at least {10 * head.weight.shape[1]:,} tokens of text, and these texts have "
            f"{statistics.count:,}. Give more rows, or start from a masked LM (sparse.head=checkpoint)."
        )
    map_DD, offset_D = statistics.solve()
    hits = [_hits(states_ND @ map_DD + offset_D, ids_N, targets_VD) for states_ND, ids_N in held_out]
    width = len(map_DD)
    length = float((held_out[0][0] @ map_DD + offset_D).norm(dim=1).median()) if held_out else 1.0
    stretch = _SPREAD * width**0.5 / length
    dense.weight.copy_(stretch * map_DD.T)
    dense.bias.copy_(stretch * offset_D + _MIDDLE)
    nn.init.constant_(norm.weight, width**-0.5)
    nn.init.zeros_(norm.bias)
    idf_V = idf(model, texts).to(head.weight.device)
    head.weight.copy_(idf_V.sqrt().unsqueeze(1) * targets_VD)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    head.bias[_not_terms(model, len(idf_V)).to(head.bias.device)] = _NEVER
    model.train(training)
    recovered = float(torch.cat(hits).float().mean()) if hits else float("nan")
    return HeadFit(tokens=statistics.count, recovered=recovered)


def untie_decoder(head: VocabularyHead) -> None:
    """Gives the decoder weights of its own, in the model and in its config."""
    decoder, model = head.decoder, head.model
    model.config.tie_word_embeddings = False
    decoder.weight = nn.Parameter(decoder.weight.detach().clone())
    if decoder.bias is not None:
        decoder.bias = nn.Parameter(decoder.bias.detach().clone())


def idf(model: SpectraSparseEncoder, texts: Sequence[str], *, most: int = 50_000) -> Tensor:
    """Returns ln((N + 1) / (df + 1)) / ln(N + 1) for each token of the vocabulary: (V,) from 0 to 1.

    Args:
        model: its tokenizer counts.
        texts: of which df counts those that hold the token.
        most: the number of texts that are read.
    """
    texts = list(texts[:most])
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), 1_000):
        for ids in model.tokenizer(texts[start : start + 1_000], truncation=True, add_special_tokens=False)[
            "input_ids"
        ]:
            counts.update(set(ids))
    df_V = torch.zeros(model.get_embedding_dimension() or len(model.tokenizer))
    df_V[list(counts)] = torch.tensor([float(count) for count in counts.values()])
    return 1 - (df_V + 1).log() / np.log(len(texts) + 1)


class _Statistics:
    """The sums of a ridge regression with an offset."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.count = 0
        self._xx = torch.zeros(width + 1, width + 1, dtype=torch.float64, device=device)
        self._xy = torch.zeros(width + 1, width, dtype=torch.float64, device=device)

    def add(self, states_ND: Tensor, targets_ND: Tensor) -> None:
        ones_N1 = torch.ones(len(states_ND), 1, device=states_ND.device)
        x = torch.cat([states_ND, ones_N1], dim=1)
        self._xx += (x.T @ x).double()
        self._xy += (x.T @ targets_ND).double()
        self.count += len(states_ND)

    def solve(self) -> tuple[Tensor, Tensor]:
        """Returns M as (D, D), to be multiplied from the right, and c as (D,).

        Raises:
            SpectraError: a state or an embedding is NaN or infinite.
        """
        if not (self._xx.isfinite().all() and self._xy.isfinite().all()):
            raise SpectraError(
                "the encoder's states or its token embedding have NaN or infinity, so no head can be made from them. "
                "Its weights are damaged: save or download the checkpoint again."
            )
        width = len(self._xx) - 1
        ridge = torch.full((width + 1,), _RIDGE * float(self._xx[:width, :width].trace()) / width).to(self._xx)
        ridge[-1] = 0  # the offset is free
        solution = torch.linalg.solve(self._xx + ridge.diag(), self._xy).float()
        return solution[:-1], solution[-1]


def _layers(head: VocabularyHead) -> tuple[nn.Linear, nn.LayerNorm]:
    """Returns the dense layer and the norm between encoder and decoder.

    Raises:
        SpectraError: the model has others.
    """
    width = head.weight.shape[1]
    inside = {id(module) for module in head.model.base_model.modules()}
    own = [module for module in head.model.modules() if id(module) not in inside and module is not head.decoder]
    dense = [module for module in own if isinstance(module, nn.Linear) and module.weight.shape == (width, width)]
    norms = [module for module in own if isinstance(module, nn.LayerNorm)]
    if len(dense) != 1 or len(norms) != 1 or dense[0].bias is None or norms[0].bias is None or head.bias is None:
        raise SpectraError(
            f"{type(head.model).__name__} has no head as BERT has it (dense layer, activation, norm, decoder), which a "
            "closed-form head needs. Start from its masked-LM head: sparse.head=checkpoint."
        )
    return dense[0], norms[0]


def _embeddings(head: VocabularyHead) -> Tensor:
    """Returns the input embedding, centered and at unit length: (V, D) fp32."""
    table_VD = head.model.get_input_embeddings().weight.detach().float()
    return F.normalize(table_VD - table_VD.mean(0), dim=-1)


def _token_states(
    model: SpectraSparseEncoder, head: VocabularyHead, texts: Sequence[str], precision: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields states (N, D) and ids (N,) of the texts' tokens without special ones, up to the limit."""
    special = torch.tensor(sorted(model.tokenizer.all_special_ids), device=head.weight.device)
    seen = 0
    sample = list(texts[: TOKENS // 8])
    order = np.random.default_rng(0).permutation(len(sample))
    for start in range(0, len(order), 512):
        part = [sample[at] for at in order[start : start + 512]]
        for _, batch in batches(part, 32, shortest_first(part)):
            if seen >= TOKENS:
                return
            features = model.preprocess(batch, task="document")
            inputs = {key: features[key].to(head.weight.device) for key in ("input_ids", "attention_mask")}
            ids_BT, mask_BT = inputs["input_ids"], inputs["attention_mask"].bool()
            real_BT = mask_BT & ~torch.isin(ids_BT, special)
            with autocast(head.weight.device.type, resolve_precision(precision)):
                states_BTD = head.encoder_states(inputs)
            seen += int(real_BT.sum())
            yield states_BTD[real_BT].float(), ids_BT[real_BT]


def _hits(predicted_ND: Tensor, ids_N: Tensor, targets_VD: Tensor) -> Tensor:
    return (predicted_ND @ targets_VD.T).argmax(1) == ids_N


def _not_terms(model: SpectraSparseEncoder, width: int) -> Tensor:
    """Returns the ids that are no terms: special tokens, BERT's unused ones, and rows beyond the vocabulary."""
    names = model.tokenizer.get_vocab()
    special = set(model.tokenizer.all_special_ids)
    terms = {number for name, number in names.items() if number not in special and not name.startswith("[unused")}
    return torch.tensor([number for number in range(width) if number not in terms], dtype=torch.long)
