"""Where the weights of a sparse vector come from: for each term, the input token that gives it its weight.

Legend: T tokens of a text, V terms of the vocabulary, K active terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra_nsa.evaluation.sparse.encoding import has_terms, modules_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """The tokens of one text and the terms of its vector.

    Attributes:
        text: prompt and text, as they are tokenized.
        tokens: T tokens.
        spans: T pairs of start and end in `text`; (0, 0) for special tokens.
        terms: (K,) the active terms, by descending weight.
        weights: (K,) their weights.
        sources: (K,) the position of the token that gives a term its weight; of several, the one that gives most.
        own: (K,) whether the term is itself a token of the text. The others are expansions.
        heat: (T,) the sum of the weights that each token gives.
    """

    text: str
    tokens: list[str]
    spans: list[tuple[int, int]]
    terms: np.ndarray
    weights: np.ndarray
    sources: np.ndarray
    own: np.ndarray
    heat: np.ndarray


def attribute(model: Any, text: str, role: str, row: np.ndarray) -> Attribution | None:
    """Attributes the weights of a text's vector to its tokens.

    With max pooling, wᵥ = max_t a(t, v) comes from one token. With sum pooling, wᵥ = Σ_t a(t, v), and every token gets
    its part. a = log(1 + relu(logit)). Of a model that needs no inference for queries, a term comes from its own token.

    Args:
        model: a `SparseEncoder`, ours or any other.
        text: the text.
        role: ``"query"`` or ``"document"``.
        row: (V,) the vector of the text, as the system computes it.

    Returns:
        the attribution; ``None`` if the dimensions of the model are no terms.
    """
    import numpy as np

    from spectra_nsa.models.prompts import role_prompt

    prompt = role_prompt(model.prompts, model.default_prompt_name, role)
    if not has_terms(model):
        return None
    ids, sources, heat = _shares(model, text, role, prompt, row)
    terms = np.flatnonzero(row)
    terms = terms[np.argsort(-row[terms], kind="stable")]
    tokenizer = model.tokenizer
    added = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return Attribution(
        text=prompt + text,
        tokens=tokenizer.convert_ids_to_tokens(ids),
        spans=_spans(tokenizer, prompt + text, ids),
        terms=terms,
        weights=row[terms],
        sources=sources[terms],
        own=np.isin(terms, [token for token in ids if token not in added]),
        heat=heat,
    )


def _shares(model: Any, text: str, role: str, prompt: str, row: np.ndarray) -> tuple[list[int], Any, Any]:
    """Returns the ids of the tokens, the (V,) source of each term, and the (T,) weight that each token gives."""
    import numpy as np
    import torch
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
    from sentence_transformers.util import batch_to_device

    modules = modules_of(model, role)
    with torch.inference_mode():
        features = batch_to_device(model.preprocess([text], prompt=prompt or None, task=role), model.device)
        ids = features["input_ids"][0].tolist()
        if isinstance(modules[0], SparseStaticEmbedding):
            gives = np.zeros((len(ids), len(row)), dtype=np.float32)
            gives[np.arange(len(ids)), ids] = 1
        else:
            gives = _activations(modules[0](features)["token_embeddings"][0], modules[1])
            if modules[1].pooling_strategy == "max":
                gives = np.where(np.arange(len(ids))[:, None] == gives.argmax(0), 1.0, 0.0)
    total = gives.sum(0)
    heat = (gives / np.where(total > 0, total, 1)) @ row
    return ids, gives.argmax(0), heat


def _activations(logits: Tensor, pooling: Any) -> np.ndarray:
    """Returns (T, V) activations; where all of a term are 0, its largest logit is marked by the smallest number."""
    import numpy as np

    activations = logits.float().relu().log1p()
    if pooling.activation_function == "log1p_relu":
        activations = activations.log1p()
    gives = activations.cpu().numpy()
    silent = np.flatnonzero(gives.max(0) == 0)
    gives[logits.argmax(0).cpu().numpy()[silent], silent] = np.finfo(np.float32).tiny
    return gives


def _spans(tokenizer: Any, text: str, ids: list[int]) -> list[tuple[int, int]]:
    """Returns the place of each token in a text; (0, 0) for all if the tokenizer cannot tell."""
    special = len(ids) > 0 and ids[0] in tokenizer.all_special_ids
    if getattr(tokenizer, "is_fast", False):
        encoding = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        spans = [(int(start), int(end)) for start, end in encoding["offset_mapping"]]
        kept = len(ids) - 1 if special else len(ids)  # a text that was cut still ends in its last special token
        if encoding["input_ids"][:kept] == ids[:kept]:
            return [*spans[:kept], *([(0, 0)] if special else [])]
    return [(0, 0)] * len(ids)
