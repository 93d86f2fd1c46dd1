"""A model as a graph: token ids in, named outputs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.heads.kinds import check_outputs, outputs_of
from spectra_nsa.heads.outputs import EncoderWithHeads
from spectra_nsa.heads.spec import ModelSpec
from spectra_nsa.models.encoding.outputs import shorten

INPUTS = ("input_ids", "attention_mask")
STATES = "last_hidden_state"
_ANOMALY = ("anomaly", "anomaly_p", "is_ood")
_CODES = ("fast", "fast_logits")


class Graph(nn.Module):
    """Token ids and mask (B, T) to a tuple of outputs.

    Attributes:
        names: of the outputs, in order.
        vocab_size: ids are below it.
        longest: the most tokens of a text.
    """

    names: tuple[str, ...]
    vocab_size: int
    longest: int


class DenseGraph(Graph):
    """A model with heads: the states of the top layer (B, T, D), and the named outputs (B, …).

    Args:
        model: encoder and heads, in evaluation mode.
        outputs: names from `outputs_of` the model.
        dim: cuts `embedding` and `semantic` to so many dimensions; ``None`` keeps all.
    """

    def __init__(self, model: EncoderWithHeads, outputs: Sequence[str], dim: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.outputs, self.dim = tuple(outputs), dim
        self.names, self.vocab_size = (STATES, *outputs), model.spec.vocab_size
        self.longest = model.spec.max_position_embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        encoded = self.model.encoder(input_ids, attention_mask, None)
        values = self.model.apply_heads(encoded, input_ids, attention_mask, self.outputs)
        values = shorten(values, self.dim)
        return (encoded.states[-1], *(values[name] for name in self.outputs))


def choose_outputs(spec: ModelSpec, asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Returns the outputs to export, and notes on those that are left out.

    Args:
        spec: the model's shape.
        asked: names; ``None`` for all that the model has and that were fitted.

    Raises:
        UsageError: the model has no such output.
        SpectraError: its head was never fitted.
    """
    fitted = spec.anomaly_method != "none"
    if asked is not None:
        check_outputs(spec, asked)
        missing = [name for name in asked if name in _ANOMALY] if not fitted else []
        if missing:
            raise SpectraError(
                f"{missing[0]}: the anomaly score of the model is not fitted. To fit: "
                "spectra anomaly fit MODEL --texts FILE"
            )
        unfitted = [name for name in asked if name in _CODES] if not spec.codes_fitted else []
        notes = (
            [f"{unfitted[0]}: the binary codes are not fitted and find less (spectra codes fit)"] if unfitted else []
        )
        return list(dict.fromkeys(("embedding", *asked))), notes
    notes = []
    left_out: set[str] = set()
    if not fitted:
        left_out |= set(_ANOMALY)
        notes.append("the anomaly score is not fitted and is left out (spectra anomaly fit)")
    if not spec.codes_fitted:
        left_out |= set(_CODES)
        notes.append("the binary codes are not fitted and are left out (spectra codes fit)")
    return [name for name in outputs_of(spec) if name not in left_out], notes


def sizes(graph: Graph, length: int | None) -> tuple[dict[int, Any], dict[int, Any]] | None:
    """Returns which sizes of ids and mask vary, as `torch.export` wants them; ``None`` if none does.

    Args:
        graph: what is traced.
        length: the fixed length; ``None`` for a graph of any.
    """
    if length is not None:
        return None
    # The upper bound must be one that the code itself implies: a table of positions, if there is one.
    named = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=graph.longest)}
    return named, named


@torch.no_grad()
def example(vocab_size: int, length: int | None) -> tuple[Tensor, Tensor]:
    """Returns token ids and mask to trace with: two texts, or one of a fixed length, the last tokens padding.

    Args:
        vocab_size: ids are below it.
        length: the fixed length; ``None`` for a graph of any.
    """
    texts, tokens = (2, 7) if length is None else (1, length)  # no size 1 that is meant to vary
    low = min(5, vocab_size - 1)
    ids = torch.arange(low, low + texts * tokens).reshape(texts, tokens) % vocab_size
    mask = torch.ones(texts, tokens, dtype=torch.long)
    mask[:, max(1, tokens - 2) :] = 0
    return ids, mask
