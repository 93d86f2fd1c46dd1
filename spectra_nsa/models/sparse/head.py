"""A masked LM taken apart: the states that its decoder reads, and the decoder."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.model import SpectraForMaskedLM


class VocabularyHead:
    """The decoder of a masked LM, and the rest of the model without it.

    Args:
        model: any Hugging Face masked LM whose last step is a linear layer over the vocabulary.

    Raises:
        SpectraError: it has no such layer.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        if not isinstance(self.decoder, nn.Linear):
            raise SpectraError(
                f"{type(model).__name__} has no linear decoder over the vocabulary, which a sparse encoder needs. "
                "Start from a masked LM, or from a BERT-architecture encoder with sparse.head=closed_form."
            )

    @property
    def decoder(self) -> nn.Linear:
        """The decoder."""
        decoder: nn.Linear = self.model.get_output_embeddings()
        return decoder

    @property
    def weight(self) -> Tensor:
        """(V, D)."""
        return self.decoder.weight

    @property
    def bias(self) -> nn.Parameter | None:
        """(V,); ``None`` for none."""
        return self.model.lm_head.bias if isinstance(self.model, SpectraForMaskedLM) else self.decoder.bias

    def token_embedding(self) -> nn.Embedding | None:
        """Returns the table that ids are looked up in; ``None`` if a forward pass cannot take its rows instead."""
        table = self.model.get_input_embeddings()
        encoder = self.model.model if isinstance(self.model, SpectraForMaskedLM) else self.model
        takes = "inputs_embeds" in inspect.signature(encoder.forward).parameters
        return table if takes and type(table) is nn.Embedding else None

    def encoder_states(self, features: dict[str, Any]) -> Tensor:
        """Runs the encoder alone: its last states, (B, T, D); see `states`."""
        if isinstance(self.model, SpectraForMaskedLM):
            last: Tensor = self.model.model(**features, outputs=()).last_hidden_state
            return last
        last = self.model.base_model(**features, return_dict=True).last_hidden_state
        return last

    def states(self, features: dict[str, Any]) -> Tensor:
        """Runs the model up to the decoder.

        Args:
            features: `input_ids` and `attention_mask`, (B, T), and what else the model takes; `inputs_embeds`,
                (B, T, D), if the ids are looked up already.

        Returns:
            (B, T, D).
        """
        if isinstance(self.model, SpectraForMaskedLM):
            return self.model.lm_head.states(self.model.model(**features, outputs=()).last_hidden_state)
        if "inputs_embeds" in features:
            features = {name: value for name, value in features.items() if name != "input_ids"}
        # No architecture offers these states by a name that all share, but all of them call their decoder last.
        decoder: Any = self.decoder
        decoder.forward = _identity  # on the instance, which hides the class's
        try:
            states: Tensor = self.model(**features, return_dict=True).logits
        finally:
            del decoder.forward
        return states

    @torch.no_grad()
    def scale_states(self, factor: float) -> bool:
        """Multiplies the states that the decoder reads, by the weights of the norm before it.

        Args:
            factor: above 0.

        Returns:
            whether there is such a norm; without one nothing changes.
        """
        inside = {id(module) for module in self.model.base_model.modules()}
        norms = [
            module
            for module in self.model.modules()
            if isinstance(module, nn.LayerNorm) and id(module) not in inside and module.weight is not None
        ]
        if len(norms) != 1:
            return False
        weights = [weight for weight in (norms[0].weight, norms[0].bias) if weight is not None]
        saved, before = [weight.clone() for weight in weights], self._sample_states()
        for weight in weights:
            weight.mul_(factor)
        if torch.allclose(self._sample_states(), factor * before, rtol=1e-4, atol=1e-5 * factor):
            return True
        for weight, value in zip(weights, saved, strict=True):  # something stands between norm and decoder
            weight.copy_(value)
        return False

    def _sample_states(self) -> Tensor:
        training = self.model.training
        self.model.eval()
        try:
            with torch.autocast(self.weight.device.type, enabled=False):
                return self.states(self._sample())
        finally:
            self.model.train(training)

    def _sample(self) -> dict[str, Tensor]:
        ids = torch.arange(1, 4, device=self.weight.device).clamp_max(len(self.weight) - 1).unsqueeze(0)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def is_exact(self) -> bool:
        """Returns whether states and decoder give the model's own logits, on a tiny input."""
        features = self._sample()
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), torch.autocast(self.weight.device.type, enabled=False):
                states = self.states(features)
                if states.shape[-1] != self.weight.shape[1]:
                    return False
                ours = nn.functional.linear(states, self.weight, self.bias)
                logits = self.model(**features, return_dict=True).logits
                return torch.allclose(ours, logits, atol=1e-3, rtol=1e-3, equal_nan=True)
        finally:
            self.model.train(training)


def _identity(states: Tensor) -> Tensor:
    return states
