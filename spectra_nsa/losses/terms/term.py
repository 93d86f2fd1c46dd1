"""What a loss term is, and what it sees of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.config.terms import Side


@dataclass(frozen=True, kw_only=True)
class TermBatch:
    """One batch of all processes, as a term sees it.

    Attributes:
        outputs: for each column the model's outputs by name, (B, …).
        inputs: for each column its distillation inputs by name (see `config/terms/`).
        scores: (B,) from 0 to 1, of scored pairs; ``None`` otherwise.
        parameters: those of the model that the term names.
        sizes: the Matryoshka sizes of `embedding`, largest first.
        entity_sizes: those of `entity`.
        temperature: τ at this step.
        distill_temperature: of the similarity distributions that are learned from teachers.
        progress: the share of the schedule that is done, 0 to 1.
        both_directions: whether InfoNCE also ranks anchors for each positive.
        margin: of a term that has one, otherwise 0.
        threshold: of a regularizer: only texts with more active dimensions count; ``None`` counts all.
        scale: factor on the dot products of sparse vectors.
        teachers: width and weight of each teacher whose vectors stand side by side; empty for a single one.
        teacher_scale: factor on the teachers' scores after they are normalized, for sparse vectors.
        load: (L, E), how often the experts of each layer were chosen in the whole step; ``None`` counts the batch.
        frequencies: of sparse vectors, for each side the share of the texts in which each term is active, (V,).
    """

    outputs: Sequence[Mapping[str, Tensor]]
    inputs: Sequence[Mapping[str, Tensor]] = ()
    scores: Tensor | None = None
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    sizes: Sequence[int] = ()
    entity_sizes: Sequence[int] = ()
    temperature: float = 0.05
    distill_temperature: float = 0.05
    progress: float = 0.0
    both_directions: bool = True
    margin: float = 0.0
    threshold: int | None = None
    scale: float = 1.0
    teachers: Sequence[tuple[int, float]] = ()
    teacher_scale: float = 1.0
    frequencies: Mapping[Side, Tensor] = field(default_factory=dict)
    load: Tensor | None = None

    def columns(self, output: str) -> list[Tensor]:
        """Returns an output of each column in fp32: anchors, positives, any negatives."""
        return [column[output].float() for column in self.outputs]

    def units(self, output: str) -> list[Tensor]:
        """Returns an output of each column, scaled to unit length."""
        return [F.normalize(column, dim=-1) for column in self.columns(output)]

    def texts(self, output: str) -> Tensor:
        """Returns an output of all texts: all anchors, then all positives, then any negatives."""
        return torch.cat(self.columns(output))

    def unit_texts(self, output: str) -> Tensor:
        """Returns an output of all texts, scaled to unit length."""
        return torch.cat(self.units(output))

    def at_sizes(self, loss: Callable[..., Tensor]) -> dict[int, Tensor]:
        """Returns a loss of the embeddings at every Matryoshka size.

        Args:
            loss: takes one (B, size) tensor for each column.
        """
        columns = self.columns("embedding")
        return {size: loss(*[column[:, :size] for column in columns]) for size in self.sizes}


@dataclass(frozen=True)
class Term:
    """A term of the loss: which tensors it reads, and a pure function of them.

    Attributes:
        name: its key under `loss.terms`; the facts are in `config/terms/`.
        outputs: the model's outputs that it reads.
        compute: returns its value, or one value for each Matryoshka size, of which the term is the mean.
        head: the output whose head it trains. Unless the recipe sets `train_encoder`, its gradient stops
            there. ``None`` if it trains the encoder in any case.
        parameters: names of parameters of the model that it reads beside the outputs.
    """

    name: str
    outputs: tuple[str, ...]
    compute: Callable[[TermBatch], Tensor | Mapping[int, Tensor]]
    head: str | None = None
    parameters: tuple[str, ...] = ()

    def values(self, batch: TermBatch) -> dict[str, Tensor]:
        """Returns the term's values under the names that are logged; the term is their sum."""
        found = self.compute(batch)
        if isinstance(found, Tensor):
            return {self.name: found}
        return {f"{self.name}_{size}": value / len(found) for size, value in found.items()}
