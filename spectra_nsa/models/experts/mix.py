"""A model with experts from dense models that were trained apart (branch, train, mix).

The feed-forward networks of each model become the experts of a layer; all other weights are averaged (Sukhbaatar et al.
2024, Branch-Train-MiX), which changes nothing if they were not trained. The router is not trained but fitted: ridge
regression from what it reads to the model that a text belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.encoder.experts.spec import ExpertSpec
from spectra_nsa.models.experts.upcycle import with_weights

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

_SHARPNESS = 20.0  # of the gate: fitted targets differ by 1 only
_HEADS = ("entity.", "fusion.", "ranking.", "anchors.", "bridge.", "anomaly.")  # taken from the first model
_OWN = ("codes_fitted", "anomaly_method", "anomaly_calibration", "max_length")  # may differ


def check_alike(models: Mapping[str, SpectraSentenceTransformer]) -> None:
    """Checks that models can be mixed: dense, of one shape and vocabulary.

    Args:
        models: by the name that a message uses.

    Raises:
        SpectraError: they cannot.
    """
    from spectra_nsa.models.vocabulary import same_tokenizer

    (first, model), *others = models.items()
    shape = _shape(model)
    for name, opened in models.items():
        if opened.spectra.config.ffn == "moe":
            raise SpectraError(f"{name} has experts already: mix dense models, or take one expert (spectra moe dense).")
    for name, other in others:
        if different := [key for key, value in _shape(other).items() if shape[key] != value]:
            key = different[0]
            raise SpectraError(
                f"{name} and {first} have different shapes ({key} is {_shape(other)[key]} and {shape[key]}): mix "
                "models that were trained from one start."
            )
        if not same_tokenizer(model.tokenizer, other.tokenizer):
            raise SpectraError(f"{name} and {first} have different vocabularies: mix models trained from one start.")


def _shape(model: SpectraSentenceTransformer) -> dict[str, Any]:
    from dataclasses import fields

    from spectra_nsa.heads.spec import ModelSpec

    names = [field.name for field in fields(ModelSpec) if field.name not in _OWN]
    return {name: getattr(model.spectra.config, name) for name in names}


def distance_of_averaged(models: Sequence[SpectraSentenceTransformer], experts: ExpertSpec) -> float:
    """Returns how far apart the weights are that `mix` averages: the largest relative distance to the first model's,
    0 if none was trained."""
    states = [model.spectra.state_dict() for model in models]
    layers = models[0].spectra.config.num_hidden_layers
    largest = 0.0
    for name, weight in states[0].items():
        if _is_averaged(name, weight, experts, layers):
            norm = float(weight.norm()) or 1.0
            largest = max(largest, *(float((state[name] - weight).norm()) / norm for state in states))
    return largest


def _is_averaged(name: str, weight: Tensor, experts: ExpertSpec, layers: int) -> bool:
    """Returns whether a weight is neither of a network that becomes an expert, nor of a head, nor a count."""
    return weight.is_floating_point() and not name.startswith(_HEADS) and not _becomes_expert(name, experts, layers)


def _becomes_expert(name: str, experts: ExpertSpec, layers: int) -> bool:
    stem, marker, _ = name.partition(".ffn.")
    return bool(marker) and experts.in_layer(int(stem.rpartition(".")[2]), layers)


def mix(models: Sequence[SpectraSentenceTransformer], experts: ExpertSpec) -> None:
    """Turns the first model into one whose experts are the feed-forward networks of all.

    Args:
        models: alike, see `check_alike`; the first is changed in place. Its heads stay.
        experts: as many as models, top 1 and not sliced. The routers get their initial weights.
    """
    states = [model.spectra.state_dict() for model in models]
    layers = models[0].spectra.config.encoder_spec()

    def stacked(first: Mapping[str, Tensor], spec: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, value in first.items():
            values = [state[name] for state in states]
            if _becomes_expert(name, experts, layers.layers):
                stem, _, last = name.partition(".ffn.")
                part, _, kind = last.partition(".")
                found[f"{stem}.ffn.{part}_proj{'_bias' if kind == 'bias' else ''}"] = torch.stack(values)
            elif _is_averaged(name, value, experts, layers.layers):
                found[name] = torch.stack(values).mean(0)
            else:
                found[name] = value
        return found

    kind = layers.ffn
    config = {"ffn": "moe", "experts": ExpertSpec.from_config(experts.to_config() | {"kind": kind}).to_config()}
    with_weights(models[0], config, stacked)


class RidgeGate:
    """Fits a gate W (E, D) without a bias, so that the largest number of W x is at the label of x.

    Each label counts the same, however many examples it has. The target of an example is 1 at its label and 0
    elsewhere, less the mean 1 / E, and W = T X (XᵀX + λ I)⁻¹.

    Args:
        experts: E.
        size: D.
    """

    def __init__(self, experts: int, size: int) -> None:
        self.squares_EDD = torch.zeros(experts, size, size, dtype=torch.float64)
        self.sums_ED = torch.zeros(experts, size, dtype=torch.float64)
        self.counts_E = torch.zeros(experts, dtype=torch.float64)

    def add(self, x_MD: Tensor, label: int) -> None:
        """Takes examples of a label into account."""
        x_MD = x_MD.double().cpu()
        self.squares_EDD[label] += x_MD.T @ x_MD
        self.sums_ED[label] += x_MD.sum(0)
        self.counts_E[label] += len(x_MD)

    def solve(self, ridge: float) -> Tensor:
        """Returns W, scaled so that a fitted gate is decided.

        Args:
            ridge: λ as a multiple of the mean square of the inputs.
        """
        counts_E1 = self.counts_E.clamp_min(1)[:, None]
        gram_DD = (self.squares_EDD / counts_E1[..., None]).sum(0)
        gram_DD += ridge * gram_DD.diagonal().mean() * torch.eye(len(gram_DD), dtype=torch.float64)
        means_ED = self.sums_ED / counts_E1
        target_EE = torch.eye(len(means_ED), dtype=torch.float64) - 1 / len(means_ED)
        return (_SHARPNESS * torch.linalg.solve(gram_DD, means_ED.T @ target_EE).T).float()
