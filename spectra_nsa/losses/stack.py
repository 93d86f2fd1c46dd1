"""The loss stack: named terms with weights, start steps and ramps, and a guard against numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.config.sections import LossSection
from spectra_nsa.core.errors import UsageError
from spectra_nsa.heads.anomaly import KAPPA
from spectra_nsa.losses import terms
from spectra_nsa.losses.cached import GradientCache, cached_pass, gradient_norm
from spectra_nsa.losses.distill import BROUGHT, SCORES, TAUGHT, TEACHER, taught
from spectra_nsa.losses.finite import NotFiniteError, agreed
from spectra_nsa.losses.info_nce import InfoNCE
from spectra_nsa.losses.whole_batch import sizes_of, whole_outputs, whole_scores
from spectra_nsa.tokens.length_batches import Work, outputs_by_length

if TYPE_CHECKING:
    from spectra_nsa.models.model import SpectraModel
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

# What each term needs of the model. Terms of a head alone train that head on features without gradient unless the
# recipe joins them to the encoder.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "semantic": ("embedding",),
    "cosent": ("embedding",),
    "angle": ("embedding",),
    "cosine": ("embedding",),
    "contrastive": ("embedding",),
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
_OF = {**NEEDS, **TAUGHT}
HARD_NEGATIVES = ("triplet", "ranking")  # terms that have nothing to say of plain pairs
MATCHES = ("semantic", "anchor", "entity", *HARD_NEGATIVES)  # terms that take the texts of a row for a match
ALONE = (*MATCHES, "spectral")  # terms that have nothing to say of single texts
SCORED = ("cosent", "angle", "cosine", "contrastive")  # terms of pairs with a score
BEYOND_OUTPUTS: tuple[str, ...] = ()  # terms that need more than outputs and token ids: they cannot be cached
STEEPEST = 20.0  # of the tanh that stands for the sign of a code, at the end


def apt(name: str, texts: int, scored: bool, brought: Collection[str] = ()) -> bool:
    """Whether a term has something to say of rows of so many texts, with a score or without, and what they bring."""
    if name == "margin_mse":
        return texts > 2 and bool({TEACHER, SCORES} & set(brought))
    if name in TAUGHT:
        return TEACHER in brought
    if texts == 1 and name in ALONE:
        return False
    if scored:
        return name not in MATCHES
    return name not in SCORED and (texts > 2 or name not in HARD_NEGATIVES)


class LossStack(nn.Module):
    """The weighted sum of named terms over one batch.

    Args:
        model: the model in training.
        section: weights, start steps, ramps, temperatures.
        active: the terms that may take part; others are left out whatever their weight.
        sizes: the Matryoshka sizes of `embedding`.
        groups: forward passes a batch; see `outputs_by_length`.
        cached: the most tokens of a forward pass, the loss being computed from cached outputs (see `losses/cached.py`);
            ``None`` computes it at once. The terms' sum is then all that can be back-propagated.
        together: whether processes share the encoder's weights out, so that each has to make every pass with the
            others; then, with `cached`, `finish` follows the backward pass.
        taught_at: the temperature at which similarities are learnt from a teacher's.

    Raises:
        UsageError: a term that cannot be cached.
    """

    def __init__(
        self,
        model: SpectraSentenceTransformer,
        section: LossSection,
        *,
        active: Sequence[str],
        sizes: Sequence[int],
        groups: int | None = None,
        cached: int | None = None,
        together: bool = False,
        taught_at: float = 0.05,
    ) -> None:
        super().__init__()
        self.model = model
        self.section = section
        self.active = tuple(name for name in _OF if name in active and getattr(section.terms, name).weight > 0)
        self.groups = groups
        self.cached = cached
        self.together = together
        self.taught_at = taught_at
        if cached is not None and (alien := [name for name in self.active if name in BEYOND_OUTPUTS]):
            raise UsageError(
                f"train.cached_batch: the term {alien[0]!r} needs more than the model's outputs. Turn one of them off: "
                f"loss.terms.{alien[0]}.weight=0 or train.cached_batch=null."
            )
        self.semantic = InfoNCE(
            model, temperature=section.temperature, sizes=sizes, both_directions=section.both_directions
        )
        del self.semantic.model
        self.step, self.steps = 0, 1
        self.work = Work()
        self.gradient_norms: dict[str, float] | None = None  # filled where it is a dict
        self._cache: GradientCache | None = None  # of the last forward pass

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
            features: tokenised columns: anchor, positive, and any negatives; or a single one. For the terms of
                distillation each brings `teacher` and `target`, of which the loss knows nothing more.
            labels: (B,) scores from 0 to 1 of the pairs in two columns; ``None`` where a row's texts match.

        Raises:
            NotFiniteError: an output of the model, or a term, is not finite; the message names it.
        """
        columns, brought = _apart(features)
        weights = {name: self.weight(name) for name in self.active}
        kind = (len(columns), labels is not None, brought[-1])
        live = [name for name in self.active if weights[name] and apt(name, *kind)]
        names = sorted({output for name in live for output in _OF[name]})
        detached = sorted(
            {_OF[name][0] for name in live if not getattr(self.section.terms, name).joined} - {"embedding"}
        )
        asked = {"spectra_outputs": tuple(names), "spectra_detached": tuple(detached)}
        columns = [column | asked for column in columns]
        self.semantic.set_temperature(self.temperature)
        sizes = sizes_of(columns)
        self._cache = cache = None
        if self.cached is not None and torch.is_grad_enabled():
            run = cached_pass(self.model, columns, self.cached, names, self.work, self.together)
            self._cache = cache = GradientCache(run, sizes, self.spectra.parameters(), self.gradient_norms)
            outputs = cache.outputs
        else:
            # On a GPU such gradients cost next to nothing, and finding the tokens in use would stall the queue.
            table = self.spectra.get_input_embeddings() if self.spectra.device.type == "cpu" else None
            own = outputs_by_length(self.model, columns, self.groups, names, self.work, table, self.together)
            outputs = whole_outputs(own, sizes)
        scores = whole_scores(labels, sizes) if labels is not None else None
        brought = whole_outputs(brought, sizes)
        values: dict[str, Tensor] = {}
        with agreed():
            self._check_outputs(outputs)
            for name in live:
                values |= self._weighted(name, weights[name], outputs, scores, brought, cache)
        if cache is not None:
            return cache.deferred(values)
        if self.gradient_norms is not None:
            self._measure(values, outputs, names)
        return values

    def finish(self) -> None:
        """What is left of the backward pass, where that has not done all (see `GradientCache.deferred`)."""
        if self._cache is not None:
            self._cache.finish()
            self._cache = None

    def _weighted(
        self,
        name: str,
        weight: float,
        outputs: Sequence[dict[str, Tensor]],
        scores: Tensor | None,
        brought: Sequence[dict[str, Tensor]],
        cache: GradientCache | None,
    ) -> dict[str, Tensor]:
        """A term's values; where a cache takes their gradients at once, nothing of the term's matrices stays."""
        if name in TAUGHT:
            student = [column["embedding"].float() for column in outputs]
            found = taught(name, student, brought, self.semantic.sizes, self.taught_at)
        else:
            found = self._term(name, outputs, scores)
        values = {part: weight * value for part, value in found.items()}
        for part, value in values.items():
            if not torch.isfinite(value):
                raise NotFiniteError(f"the term {part!r} is {value.item()}, from {' and '.join(_OF[name])}")
        return values if cache is None else cache.take(values)

    def _term(self, name: str, outputs: Sequence[dict[str, Tensor]], scores: Tensor | None) -> dict[str, Tensor]:
        def every(output: str) -> Tensor:
            return torch.cat([column[output].float() for column in outputs])

        def unit(output: str) -> list[Tensor]:
            return [F.normalize(column[output].float(), dim=-1) for column in outputs]

        if name == "semantic":
            return self.semantic.of_vectors([column["embedding"] for column in outputs])
        if name in SCORED:
            assert scores is not None
            return self._scored(name, [column["embedding"].float() for column in outputs], scores)
        if name == "triplet":
            anchor, positive, *negatives = unit("embedding")
            return {name: terms.triplet(anchor, positive, negatives, self.section.terms.triplet.margin)}
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
            columns = [column["entity"].float() for column in outputs]
            return {name: terms.entity(columns, self.temperature, self.spectra.config.entity_dims)}
        return {
            name: terms.anomaly(torch.cat(unit("embedding")).detach(), self.spectra.anomaly.prototypes.weight, KAPPA)
        }

    def _scored(self, name: str, columns: Sequence[Tensor], scores_B: Tensor) -> dict[str, Tensor]:
        """One value a Matryoshka size, as for `semantic`."""
        term: Any = getattr(terms, name)
        more = {"cosine": (), "contrastive": (self.section.terms.contrastive.margin,)}.get(name, (self.temperature,))
        return {
            f"{name}_{size}": term(*[column[:, :size] for column in columns], scores_B, *more)
            / len(self.semantic.sizes)
            for size in self.semantic.sizes
        }

    def _codes(self, name: str, logits_NB: Tensor, target_ND: Tensor) -> Tensor:
        bridge = self.spectra.bridge
        steepness = STEEPEST**self.progress
        if name == "fast":
            return terms.fast(logits_NB, bridge.sharpness, target_ND, steepness)
        return terms.bridge(bridge.decode(torch.tanh(steepness * logits_NB)).float(), target_ND)

    def _check_outputs(self, outputs: Sequence[dict[str, Tensor]]) -> None:
        for column in outputs:
            for name, value in column.items():
                if not torch.isfinite(value).all():
                    raise NotFiniteError(f"the model's output {name!r} is not finite")

    def _measure(self, values: Mapping[str, Tensor], outputs: Sequence[dict[str, Tensor]], names: list[str]) -> None:
        """The norm of each weighted term's gradient at the model's outputs, which costs no backward pass below them."""
        assert self.gradient_norms is not None
        inputs = [column[name] for column in outputs for name in names if column[name].requires_grad]
        bridge = self.spectra.bridge
        inputs += [self.spectra.anomaly.prototypes.weight, bridge.decode.weight, bridge.sharpness]  # beside the outputs
        for name, value in values.items():
            if value.requires_grad and inputs:
                self.gradient_norms[name] = gradient_norm(
                    torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
                )


def _apart(features: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Tensor]]]:
    """What the model is given of each column, and what the terms of distillation are."""
    columns = list(features)
    brought = [{name: column[name].float() for name in BROUGHT if name in column} for column in columns]
    return [{name: value for name, value in column.items() if name not in BROUGHT} for column in columns], brought
