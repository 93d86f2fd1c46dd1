"""What the routers of a model choose for texts, and what its experts compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_nsa.core.console import progress
from spectra_nsa.encoder.experts.layer import ExpertFFN
from spectra_nsa.heads.routing import gate_entropy, gate_margin
from spectra_nsa.metrics.finite import check_finite
from spectra_nsa.models.encoding.loop import batches
from spectra_nsa.models.encoding.roles import encode_role
from spectra_nsa.models.prompts import role_prompt
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.workflows.moe.texts import TextTable

BATCH = 64
SAMPLED = 512  # token states for comparing what experts compute


@dataclass(frozen=True, kw_only=True)
class Routes:
    """The choices for texts, in the order of texts and tokens, without padding.

    Attributes:
        text_N: the text of each choice.
        ids_N: the token id of each; ``None`` if each text has one choice.
        chosen: per layer (N, K), the expert with the largest gate first.
        entropy_LN: the gate's entropy, 1 if uniform.
        margin_LN: the distance of a chosen expert's logit to the best of the others.
    """

    text_N: NDArray[np.int64]
    ids_N: NDArray[np.int64] | None
    chosen: list[NDArray[np.int64]]
    entropy_LN: NDArray[np.float32]
    margin_LN: NDArray[np.float32]


def expert_layers(model: SpectraSentenceTransformer) -> list[ExpertFFN]:
    """Returns the parts of a model that have experts, lowest layer first."""
    return [module for module in model.spectra.modules() if isinstance(module, ExpertFFN)]


@torch.inference_mode()
def collect_routes(model: SpectraSentenceTransformer, table: TextTable, *, label: str = "routing") -> Routes:
    """Runs texts through a model with experts, in fp32 and with the prompts of their roles, and returns its choices."""
    parts: list[tuple[Any, ...]] = []
    by_text = expert_layers(model)[0].spec.by_text
    for positions, batch, prompt in progress(list(_batches(model, table)), label=label):
        inputs = _inputs(model, batch, prompt)
        signals = model.spectra(**inputs, outputs=(), output_hidden_states=True).signals
        routings = [signal.routing for signal in signals if signal.routing is not None]
        made_BS = (routings[0].chosen_BSK[..., 0] >= 0).cpu()
        rows_BS = torch.from_numpy(positions)[:, None].expand(made_BS.shape)
        ids = None if by_text else inputs["input_ids"].cpu()[made_BS]
        chosen = [by_gate(routing)[made_BS].numpy() for routing in routings]
        figures = [torch.stack([of(routing).cpu()[made_BS] for routing in routings]) for of in _FIGURES]
        parts.append((rows_BS[made_BS], ids, chosen, *figures))
    text_N = np.concatenate([part[0].numpy() for part in parts])
    order = np.argsort(text_N, kind="stable")
    return Routes(
        text_N=text_N[order],
        ids_N=None if by_text else np.concatenate([part[1].numpy() for part in parts])[order],
        chosen=[np.concatenate([part[2][at] for part in parts])[order] for at in range(len(parts[0][2]))],
        entropy_LN=np.concatenate([part[3].numpy() for part in parts], axis=1)[:, order],
        margin_LN=np.concatenate([part[4].numpy() for part in parts], axis=1)[:, order],
    )


_FIGURES = (gate_entropy, gate_margin)


def _batches(
    model: SpectraSentenceTransformer, table: TextTable
) -> Iterator[tuple[NDArray[np.int64], list[str], str | None]]:
    """Yields positions, texts and prompt of batches of one role."""
    for role, is_role_T in (("query", table.query_T), ("document", ~table.query_T)):
        of_role = np.flatnonzero(is_role_T)
        prompt = role_prompt(model.prompts, model.default_prompt_name, role) or None
        for positions, batch in batches([table.texts[at] for at in of_role], BATCH):
            yield of_role[positions], batch, prompt


def _inputs(model: SpectraSentenceTransformer, batch: list[str], prompt: str | None) -> dict[str, Tensor]:
    """Returns the tokens of texts as the model reads them."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: v.to(model.device) for name, v in model.preprocess(batch, prompt=prompt).items() if name in names}


def by_gate(routing: Any) -> Tensor:
    """Returns the chosen experts, the one with the largest gate first: (B, S, K)."""
    chosen_BSK = routing.chosen_BSK.cpu()
    gate_BSK = routing.probs_BSE.cpu().gather(-1, chosen_BSK.clamp_min(0))
    return chosen_BSK.gather(-1, gate_BSK.argsort(dim=-1, descending=True, stable=True))


def vectors_of(model: SpectraSentenceTransformer, table: TextTable) -> NDArray[np.float32]:
    """Returns the default vectors of texts at unit length, in fp32 and with the prompts of their roles: (T, D)."""
    vectors_TD = np.zeros((len(table.texts), model.spec.projection_dim), dtype=np.float32)
    for role, is_role_T in (("query", table.query_T), ("document", ~table.query_T)):
        of_role = np.flatnonzero(is_role_T)
        if len(of_role):
            vectors_TD[of_role] = encode_role(model, [table.texts[at] for at in of_role], role, batch_size=BATCH)
    check_finite(vectors_TD, "the model")
    return vectors_TD / np.linalg.norm(vectors_TD, axis=1, keepdims=True).clip(1e-12)


@torch.inference_mode()
def expert_outputs(model: SpectraSentenceTransformer, table: TextTable) -> list[NDArray[np.float32]]:
    """Returns what every expert of each layer computes for the same token states: per layer (E, N, D).

    Args:
        model: with experts.
        table: texts; a sample of the tokens of 64 of them, from all over the table, is used.
    """
    texts = table.texts[:: max(1, len(table.texts) // BATCH)][:BATCH]
    seen: dict[int, Tensor] = {}
    layers = expert_layers(model)

    def keep(at: int) -> Callable[..., None]:
        def hook(module: Any, inputs: tuple[Any, ...]) -> None:
            x_BTD, context = inputs
            states_ND = x_BTD[context.mask_BT]
            seen[at] = states_ND[:: max(1, len(states_ND) // SAMPLED)][:SAMPLED]

        return hook

    with ExitStack() as stack:
        for at, layer in enumerate(layers):
            stack.callback(layer.register_forward_pre_hook(keep(at)).remove)
        model.encode(texts, batch_size=BATCH, precision="fp32")
    return [layer.outputs_of_all(seen[at]).float().cpu().numpy() for at, layer in enumerate(layers)]
