"""The loss stack: named terms with weights, start steps and ramps, and a guard against numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.config.recipe import LossSection
from spectra_nsa.heads.anomaly import KAPPA
from spectra_nsa.losses import terms
from spectra_nsa.losses.info_nce import InfoNCE
from spectra_nsa.models.length_groups import Work, outputs_by_length

if TYPE_CHECKING:
    from spectra_nsa.models.model import SpectraModel
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

# What each term needs of the model. Terms of a head alone train that head on features without gradient unless the
# recipe joins them to the encoder.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "semantic": ("embedding",),
    "triplet": ("embedding",),
    "matryoshka_angular": ("embedding",),
    "spectral": ("embedding",),
    "ranking": ("ranking",),
    "anchor": ("anchor64",),
    "fast": ("fast_logits", "embedding"),
    "bridge": ("fast_logits", "embedding"),
    "entity": ("entity",),
    "anomaly": ("embedding",),
}
HARD_NEGATIVES = ("triplet", "ranking")  # terms that have nothing to say of plain pairs
STEEPEST = 20.0  # of the tanh that stands for the sign of a code, at the end


class NotFiniteError(Exception):
    """A term or an output is not finite; the step is to be skipped."""


class LossStack(nn.Module):
    """The weighted sum of named terms over one batch.

    Args:
        model: the model in training.
        section: weights, start steps, ramps, temperatures.
        active: the terms that may take part; others are left out whatever their weight.
        sizes: the Matryoshka sizes of `embedding`.
        groups: forward passes a batch; see `outputs_by_length`.
        gather: whether negatives are gathered across processes (the semantic term).
    """

    def __init__(
        self,
        model: SpectraSentenceTransformer,
        section: LossSection,
        *,
        active: Sequence[str],
        sizes: Sequence[int],
        groups: int | None = None,
        gather: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.section = section
        self.active = tuple(name for name in NEEDS if name in active and getattr(section.terms, name).weight > 0)
        self.groups = groups
        self.semantic = InfoNCE(
            model, temperature=section.temperature, sizes=sizes, both_directions=section.both_directions, gather=gather
        )
        del self.semantic.model
        self.step, self.steps = 0, 1
        self.work = Work()
        self.gradient_norms: dict[str, float] | None = None  # filled where it is a dict

    @property
    def spectra(self) -> SpectraModel:
        """The Hugging Face model, also when the trainer has wrapped ours for several processes."""
        return getattr(self.model, "module", self.model).spectra

    @property
    def progress(self) -> float:
        """How much of the schedule is over, 0 to 1."""
        return min(1.0, self.step / max(1, self.steps))

    @property
    def temperature(self) -> float:
        """τ now: on a half cosine from the first to the last."""
        last = self.section.temperature
        first = self.section.temperature_start or last
        return last + (first - last) * (1 + math.cos(math.pi * self.progress)) / 2

    def weight(self, name: str) -> float:
        """A term's weight at this step: 0 before its start, then rising over its ramp."""
        term = getattr(self.section.terms, name)
        if self.step < term.start:
            return 0.0
        return term.weight * min(1.0, (self.step - term.start + 1) / (term.ramp + 1))

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted terms by name; the trainer adds them up and logs each.

        Args:
            features: tokenised columns: anchor, positive, and any negatives.
            labels: unused.

        Raises:
            NotFiniteError: an output of the model, or a term, is not finite; the message names it.
        """
        columns = list(features)
        weights = {name: self.weight(name) for name in self.active}
        live = [name for name in self.active if weights[name] and (len(columns) > 2 or name not in HARD_NEGATIVES)]
        names = sorted({output for name in live for output in NEEDS[name]})
        detached = sorted(
            {NEEDS[name][0] for name in live if not getattr(self.section.terms, name).joined} - {"embedding"}
        )
        asked = {"spectra_outputs": tuple(names), "spectra_detached": tuple(detached)}
        outputs = outputs_by_length(self.model, [column | asked for column in columns], self.groups, names, self.work)
        self._check_outputs(outputs)
        self.semantic.set_temperature(self.temperature)
        values: dict[str, Tensor] = {}
        for name in live:
            for part, value in self._term(name, outputs, columns).items():
                values[part] = weights[name] * value
                if not torch.isfinite(value):
                    raise NotFiniteError(f"the term {part!r} is {value.item()}, from {' and '.join(NEEDS[name])}")
        if self.gradient_norms is not None:
            self._measure(values, outputs, names)
        return values

    def _term(
        self, name: str, outputs: Sequence[dict[str, Tensor]], columns: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor]:
        def every(output: str) -> Tensor:
            return torch.cat([column[output].float() for column in outputs])

        def unit(output: str) -> list[Tensor]:
            return [F.normalize(column[output].float(), dim=-1) for column in outputs]

        if name == "semantic":
            return self.semantic.of_vectors([column["embedding"] for column in outputs])
        if name == "triplet":
            anchor, positive, *negatives = unit("embedding")
            return {name: terms.triplet(anchor, positive, negatives)}
        if name == "matryoshka_angular":
            return {name: terms.matryoshka_angular(torch.cat(unit("embedding")), self.semantic.sizes)}
        if name == "spectral":
            return {name: terms.spectral(unit("embedding")[0])}
        if name == "ranking":
            anchor, positive, *negatives = unit("ranking")
            return {name: terms.ranking(anchor, positive, negatives, self.temperature)}
        if name == "anchor":
            return {name: terms.anchor(outputs[0]["anchor64"].float(), outputs[1]["anchor64"].float())}
        if name in ("fast", "bridge"):
            return {name: self._codes(name, every("fast_logits"), torch.cat(unit("embedding")).detach())}
        if name == "entity":
            return {name: self._entity(every("entity"), columns)}
        return {
            name: terms.anomaly(torch.cat(unit("embedding")).detach(), self.spectra.anomaly.prototypes.weight, KAPPA)
        }

    def _codes(self, name: str, logits_NB: Tensor, target_ND: Tensor) -> Tensor:
        bridge = self.spectra.bridge
        steepness = STEEPEST**self.progress
        if name == "fast":
            return terms.fast(logits_NB, bridge.sharpness, target_ND, steepness)
        return terms.bridge(bridge.decode(torch.tanh(steepness * logits_NB)).float(), target_ND)

    def _entity(self, entity_NE: Tensor, columns: Sequence[dict[str, Any]]) -> Tensor:
        width = max(column["input_ids"].shape[1] for column in columns)
        ids, masks = (
            torch.cat([F.pad(column[key], (0, width - column[key].shape[1])) for column in columns])
            for key in ("input_ids", "attention_mask")
        )
        overlap_NN = terms.term_overlap(ids, masks, self.spectra.entity.prior.idf)
        return terms.entity(entity_NE, overlap_NN, self.spectra.config.entity_dims)

    def _check_outputs(self, outputs: Sequence[dict[str, Tensor]]) -> None:
        for column in outputs:
            for name, value in column.items():
                if not torch.isfinite(value).all():
                    raise NotFiniteError(f"the model's output {name!r} is not finite")

    def _measure(self, values: Mapping[str, Tensor], outputs: Sequence[dict[str, Tensor]], names: list[str]) -> None:
        """The norm of each weighted term's gradient at the model's outputs, which costs no backward pass below them."""
        assert self.gradient_norms is not None
        inputs = [column[name] for column in outputs for name in names if column[name].requires_grad]
        inputs += [self.spectra.anomaly.prototypes.weight, self.spectra.bridge.decode.weight]  # used beside the outputs
        for name, value in values.items():
            if value.requires_grad and inputs:
                gradients = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
                squares = [float(gradient.float().square().sum()) for gradient in gradients if gradient is not None]
                self.gradient_norms[name] = math.sqrt(sum(squares))
