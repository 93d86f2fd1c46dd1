"""The sparse encoder: sentence-transformers' `SparseEncoder`, computed without the logits of all tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from sentence_transformers.util import batch_to_device, select_max_active_dims
from torch import Tensor, nn

from spectra_nsa.core.console import progress as progress_bar
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.inputs import text_list
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.models.encoding.loop import batches
from spectra_nsa.models.prompts import ROLES, check_role, with_roles
from spectra_nsa.models.sparse.attention import use_fast_backward
from spectra_nsa.models.sparse.head import VocabularyHead
from spectra_nsa.models.sparse.pooling import max_relu_logits
from spectra_nsa.models.sparse.query_side import FALLBACK_WEIGHT
from spectra_nsa.models.sparse.rows import (
    RowBuffer,
    keep_strongest_static,
    own_ids,
    sparse_tensor,
    static_vectors,
)
from spectra_nsa.models.sparse.sides import save_side

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds")
_OUTPUT = "sparse"


class SpectraSparseEncoder(SparseEncoder):
    """A `SparseEncoder` that needs B × V numbers for a batch instead of B × T × V, and never loses a text silently.

    Its modules are the library's own, so that a plain `SparseEncoder` opens what it saves. Vectors are equal except
    for texts whose vector would be empty: here they keep the strongest of their own tokens.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prompts.update(with_roles(self.prompts, self.default_prompt_name))
        for module in self.modules():
            if isinstance(module, Transformer):
                use_fast_backward(module.model)
        self._head: tuple[Any, VocabularyHead | None] = (None, None)  # of the masked LM that stands before it

    def get_embedding_dimension(self) -> int | None:
        """Returns the size of the vocabulary."""
        if (head := self.head("document")) is not None:
            return len(head.weight)
        return super().get_embedding_dimension()

    @property
    def routes(self) -> bool:
        """Whether queries and documents take different ways through the model."""
        return isinstance(self[0], Router)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that the model knows: both if it does not route."""
        first: Any = self[0]
        return tuple(role for role in ROLES if not isinstance(first, Router) or role in first.sub_modules)

    def modules_of(self, role: str | None) -> list[nn.Module]:
        """Returns the modules that texts of a role pass: ``"query"``, ``"document"``, or ``None`` for the default."""
        first: Any = self[0]
        if not isinstance(first, Router):
            return list(self)
        routes: Any = first.sub_modules
        name = role if role in routes else first.default_route
        return [*routes[name], *list(self)[1:]]

    def masked_lm(self, role: str | None = "document") -> Any:
        """Returns the Hugging Face masked LM of a role; ``None`` if the role has none."""
        first: Any = self.modules_of(role)[0]
        return first.model if isinstance(first, Transformer) else None

    def token_embedding(self) -> nn.Module | None:
        """Returns the table that documents' ids are looked up in; ``None`` if a forward pass cannot take its rows."""
        head = self.head("document")
        return None if head is None else head.token_embedding()

    def head(self, role: str | None = "document") -> VocabularyHead | None:
        """Returns the masked LM of a role in two parts; ``None`` if its vectors are computed by other modules."""
        modules = self.modules_of(role)
        transformer, pooling = modules[0], modules[-1]
        if not (
            len(modules) == 2
            and isinstance(transformer, Transformer)
            and isinstance(pooling, SpladePooling)
            and pooling.pooling_strategy == "max"
        ):
            return None
        if self._head[0] is not transformer.model:
            self._head = transformer.model, _exact_head(transformer.model)
        return self._head[1]

    def static(self, role: str | None = "query") -> SparseStaticEmbedding | None:
        """Returns the token weights of a role that needs no inference; ``None`` for other roles."""
        modules = self.modules_of(role)
        first = modules[0]
        return first if len(modules) == 1 and isinstance(first, SparseStaticEmbedding) else None

    def save_side(self, role: str, folder: str | Path) -> None:
        """Writes what the texts of one role need (see `sides.save_side`)."""
        save_side(self, role, folder)

    def forward(self, input: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Adds ``sentence_embedding``, (B, V) fp32, to the features, or returns it as the output ``sparse``.

        ``spectra_outputs`` in `input` asks for the latter.
        """
        role = kwargs.get("task") or input.get("task")
        if (static := self.static(role)) is not None:
            vectors_BV = static_vectors(static, input)
            if not self.training:
                keep_strongest_static(vectors_BV, static, input, self._special_ids)
        elif (head := self.head(role)) is not None:
            vectors_BV = self._pooled_vectors(head, input, self.modules_of(role)[-1])
        else:
            vectors_BV = super().forward(dict(input), **kwargs)["sentence_embedding"]
        return {_OUTPUT: vectors_BV} if "spectra_outputs" in input else {**input, "sentence_embedding": vectors_BV}

    def _pooled_vectors(self, head: VocabularyHead, input: dict[str, Any], pooling: Any) -> Tensor:
        features = {key: input[key] for key in _INPUTS if key in input}
        states_BTD = head.states(features)
        vectors_BV = max_relu_logits(states_BTD, input["attention_mask"], head.weight, head.bias).log1p()
        if pooling.activation_function == "log1p_relu":
            vectors_BV = vectors_BV.log1p()
        if not self.training:
            self._fill_empty(vectors_BV, states_BTD, input, head)
        return vectors_BV

    def _fill_empty(self, vectors_BV: Tensor, states_BTD: Tensor, input: dict[str, Any], head: VocabularyHead) -> None:
        """Gives a text without any term the strongest of its own tokens; special tokens do not count."""
        for row in (~vectors_BV.any(1)).nonzero().squeeze(1).tolist():
            ids_T = own_ids(input, row, self._special_ids)
            if len(ids_T):
                bias = 0 if head.bias is None else head.bias[ids_T]
                states = states_BTD[row][input["attention_mask"][row].bool()].float()
                weight = head.weight[ids_T].float()
                vectors_BV[row, ids_T[((states @ weight.T).amax(0) + bias).argmax()]] = FALLBACK_WEIGHT

    @property
    def _special_ids(self) -> Tensor:
        return torch.tensor(sorted(self.tokenizer.all_special_ids))

    def encode(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Encodes texts as `SparseEncoder.encode` does, in constant memory beside the result.

        Raises:
            UsageError: an item is no text.
        """
        single = isinstance(inputs, str)
        texts = [str(inputs)] if single else text_list(inputs)
        if args or kwargs.keys() - _OWN_ARGUMENTS or not texts:  # several devices too
            vectors = super().encode(texts[0] if single else texts, *args, **kwargs)
            return vectors.coalesce() if isinstance(vectors, Tensor) and vectors.is_sparse else vectors
        if not kwargs.get("convert_to_tensor", True) or not kwargs.get("convert_to_sparse_tensor", True):
            return super().encode(texts[0] if single else texts, **kwargs)
        prompt = self._resolve_prompt(kwargs.get("prompt"), kwargs.get("prompt_name"))
        rows = self._csr(
            texts,
            kwargs.get("task"),
            prompt=prompt,
            batch_size=kwargs.get("batch_size", 32),
            max_active_dims=kwargs.get("max_active_dims"),
            progress=bool(kwargs.get("show_progress_bar")),
        )
        tensor = sparse_tensor(rows).to("cpu" if kwargs.get("save_to_cpu") else self.device)
        return tensor[0] if single else tensor

    def encode_csr(
        self,
        texts: Sequence[str],
        role: str | None = None,
        *,
        batch_size: int = 32,
        max_active_dims: int | None = None,
        precision: str = "fp32",
        progress: bool = False,
    ) -> csr_matrix:
        """Encodes texts to sparse rows, in constant memory beside the result.

        Args:
            texts: the texts.
            role: ``"query"`` or ``"document"``, which selects prompt and route; ``None`` for the defaults.
            batch_size: texts per forward pass.
            max_active_dims: the most terms of a text, the strongest ones; ``None`` for the model's own limit, if any.
            precision: see `resolve_precision`.
            progress: whether to show a progress bar.

        Returns:
            (N, V) float32, the indices of each row in order.

        Raises:
            UsageError: there is no such role, an item is no text, or a limit is not positive.
            SpectraError: a vector is not finite.
        """
        if role is not None:
            check_role(role)
        prompt = self.prompts.get(role) if role is not None else self._resolve_prompt(None, None)
        chosen = resolve_precision(precision)
        with autocast(self.device.type, chosen):
            return self._csr(
                text_list(texts),
                role,
                prompt=prompt or None,
                batch_size=batch_size,
                max_active_dims=max_active_dims,
                progress=progress,
            )

    def decode(self, embeddings: Any, top_k: int | None = None) -> Any:
        """Returns the terms of vectors with their weights, the largest first.

        Args:
            embeddings: a vector or several, as a tensor (`encode`) or as CSR rows (`encode_csr`).
            top_k: terms of each vector; ``None`` for all.

        Returns:
            a list of pairs of a term and its weight; for several vectors a list of such lists.
        """
        if hasattr(embeddings, "tocsr"):
            embeddings = sparse_tensor(embeddings.tocsr())
        return super().decode(embeddings, top_k)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Computes all similarities, (N, M), also under autocast, whose formats sparse products lack."""
        with torch.autocast(self.device.type, enabled=False):
            return super().similarity(embeddings1, embeddings2)

    @torch.inference_mode()
    def _csr(
        self,
        texts: list[str],
        role: str | None,
        *,
        prompt: str | None,
        batch_size: int,
        max_active_dims: int | None,
        progress: bool,
    ) -> csr_matrix:
        limit = self.max_active_dims if max_active_dims is None else max_active_dims
        if limit is not None and limit < 1:
            raise UsageError(f"max_active_dims must be at least 1, not {limit}.")
        self.eval()
        buffer = RowBuffer(self.get_embedding_dimension() or 0)
        text_batches = batches(texts, batch_size)
        if progress:
            text_batches = progress_bar(text_batches, label="encoding", total=-(-len(texts) // batch_size))
        for positions, batch in text_batches:
            features = batch_to_device(self.preprocess(batch, prompt=prompt, task=role), self.device)
            vectors_BV = self(features, task=role)["sentence_embedding"].float()
            if limit is not None:
                vectors_BV = select_max_active_dims(vectors_BV, limit)
            buffer.add(vectors_BV, positions)
        return buffer.rows()


_OWN_ARGUMENTS = frozenset(
    "prompt prompt_name task batch_size max_active_dims show_progress_bar convert_to_tensor convert_to_sparse_tensor "
    "save_to_cpu".split()
)


def _exact_head(model: Any) -> VocabularyHead | None:
    try:
        head = VocabularyHead(model)
    except SpectraError:
        return None
    return head if head.is_exact() else None
