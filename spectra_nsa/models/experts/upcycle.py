"""Experts from a feed-forward network, and a feed-forward network from an expert.

Upcycling copies each feed-forward network into all experts of its layer, so that the output does not change
(Komatsuzaki et al. 2023, Sparse Upcycling). Experts that are slices are copies of slices (He et al. 2024, virtual
groups). Noise is not needed: experts see different tokens, and differ after one update.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.encoder.experts.spec import ExpertSpec

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

# What a saved model's experts may be given anew: nothing about their weights or about inference.
TRAINING_ONLY = ("dropout", "noise", "capacity")


def set_experts(model: SpectraSentenceTransformer, settings: Mapping[str, Any] | None) -> None:
    """Gives a model experts that start as copies of its feed-forward networks; one that has experts keeps them.

    Args:
        model: changed in place.
        settings: fields of `ExpertSpec`; those of a model that has experts may only differ in what is read in training.

    Raises:
        UsageError: a setting that does not exist, or does not fit.
        SpectraError: the model has different experts.
    """
    settings = dict(settings or {})
    before = model.spectra
    if before.config.ffn != "moe":
        settings.setdefault("kind", before.config.ffn)
        if settings["kind"] != before.config.ffn:
            raise UsageError(
                f"model.experts.kind={settings['kind']}: the start's feed-forward networks are {before.config.ffn}, "
                "and experts start as copies of them. Leave the key out."
            )
        with_weights(model, {"ffn": "moe", "experts": ExpertSpec.from_config(settings).to_config()}, upcycled)
        return
    old = before.config.experts or {}
    changed = {name: value for name, value in settings.items() if old.get(name) != value}
    if fixed := [name for name in changed if name not in TRAINING_ONLY]:
        name = fixed[0]
        raise SpectraError(
            f"model.experts.{name} is {old.get(name)} in the saved model and cannot "
            f"become {changed[name]}. Leave the key out, or recover a dense model first (spectra moe dense)."
        )
    if changed:
        with_weights(
            model, {"experts": ExpertSpec.from_config(old | changed).to_config()}, lambda weights, spec: weights
        )


def make_dense(model: SpectraSentenceTransformer, expert: int = 0) -> None:
    """Replaces the experts of each layer by one of them.

    Args:
        model: changed in place.
        expert: its number; of experts that are slices its number within each group.

    Raises:
        SpectraError: the model has no experts, or an expert that is always added.
        UsageError: it has fewer experts.
    """
    config = model.spectra.config
    if config.ffn != "moe":
        raise SpectraError("the model has no experts: it is dense already.")
    experts = ExpertSpec.from_config(config.experts)
    if experts.shared:
        raise SpectraError("a shared expert is added to all others, so one of them alone is not the model.")
    size = experts.count // experts.groups
    if not 0 <= expert < size:
        raise UsageError(f"--expert {expert}: the experts are numbered 0 to {size - 1}.")
    with_weights(model, {"ffn": experts.kind, "experts": None}, lambda weights, spec: dense(weights, experts, expert))


def upcycled(weights: Mapping[str, Tensor], spec: Any) -> dict[str, Tensor]:
    """Returns a model's weights with copies of each feed-forward network as experts; routers are left out.

    Args:
        weights: of a dense model, by name.
        spec: the shape of the model with experts, a `ModelSpec`.
    """
    encoder = spec.encoder_spec()
    experts: ExpertSpec = encoder.experts
    weights, copies = dict(weights), experts.count // experts.groups
    for layer in encoder.expert_layers:
        prefix = f"encoder.layers.{layer}.ffn."
        up_name = "gate_up" if experts.kind == "geglu" else "up"
        up_FD, down_DF = weights.pop(f"{prefix}{up_name}.weight"), weights.pop(f"{prefix}down.weight")
        slices = _slices(up_FD, experts)
        weights[f"{prefix}{up_name}_proj"] = _repeated(slices, copies)
        weights[f"{prefix}down_proj"] = _repeated(down_DF.chunk(experts.groups, dim=1), copies)
        if experts.kind == "gelu":
            up_bias, down_bias = weights.pop(f"{prefix}up.bias"), weights.pop(f"{prefix}down.bias")
            weights[f"{prefix}up_proj_bias"] = _repeated(up_bias.chunk(experts.groups), copies)
            parts = [down_bias / experts.groups] * experts.groups
            weights[f"{prefix}down_proj_bias"] = _repeated(parts, copies)
    return weights


def dense(weights: Mapping[str, Tensor], experts: ExpertSpec, expert: int) -> dict[str, Tensor]:
    """Returns a model's weights with one expert as the feed-forward network of its layer.

    Args:
        weights: of a model with experts, by name.
        experts: their shape.
        expert: the number of the expert, or of one in each group.
    """
    found: dict[str, Tensor] = {}
    chosen = [group * (experts.count // experts.groups) + expert for group in range(experts.groups)]
    for name, value in weights.items():
        stem, _, last = name.rpartition(".ffn.")
        if ".ffn.router." in name:  # not the gates over depths, poolings and adapters
            continue
        parts = (
            [value[number] for number in chosen] if last.startswith(("up_proj", "gate_up_proj", "down_proj")) else []
        )
        if not parts:
            found[name] = value
        elif last == "down_proj":
            found[f"{stem}.ffn.down.weight"] = torch.cat(parts, dim=1)
        elif last == "down_proj_bias":
            found[f"{stem}.ffn.down.bias"] = torch.stack(parts).sum(0)
        elif last == "gate_up_proj":
            halves = [part.chunk(2) for part in parts]
            found[f"{stem}.ffn.gate_up.weight"] = torch.cat([half[side] for side in (0, 1) for half in halves])
        else:
            found[f"{stem}.ffn.up.{'bias' if last.endswith('bias') else 'weight'}"] = torch.cat(parts)
    return found


def _slices(up_FD: Tensor, experts: ExpertSpec) -> list[Tensor]:
    """Returns the slices of a network's first matrix; of a gated one each has its part of gate and of up."""
    if experts.kind != "geglu":
        return list(up_FD.chunk(experts.groups))
    gate_FD, up_FD = up_FD.chunk(2)
    pairs = zip(gate_FD.chunk(experts.groups), up_FD.chunk(experts.groups), strict=True)
    return [torch.cat(pair) for pair in pairs]


def _repeated(parts: Any, copies: int) -> Tensor:
    """Stacks copies of each part, group by group."""
    return torch.stack([part for part in parts for _ in range(copies)])


def with_weights(model: SpectraSentenceTransformer, fields: Mapping[str, Any], convert: Any) -> None:
    """Gives the sentence model a Spectra model with other fields of its config, and converted weights."""
    from spectra_nsa.models.model import SpectraModel

    before = model.spectra
    config = copy.deepcopy(before.config)
    for name, value in fields.items():
        setattr(config, name, value)
    config.encoder_spec()  # refuses what cannot be built
    after = SpectraModel(config)
    weights = convert(before.state_dict(), config)
    missing, unexpected = after.load_state_dict(weights, strict=False)
    new = [name for name in missing if ".ffn.router." not in name and ".ffn.shared" not in name]
    if new or unexpected:
        raise SpectraError(f"the weights do not fit experts: missing {new}, unexpected {unexpected}.")
    module: Any = model[0]
    module.model = after.train(before.training).to(before.device)
