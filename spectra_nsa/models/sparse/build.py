"""Sparse encoders from checkpoints: by name, on any masked LM, and on encoders without a masked-LM head."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import nn

from spectra_nsa.core.console import no_library_bars
from spectra_nsa.core.errors import SpectraError, opening
from spectra_nsa.core.files import read_json_object
from spectra_nsa.models.checks import resolve_folder, transformer_folder
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.masked_lm import saved_head
from spectra_nsa.models.model import register
from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
from spectra_nsa.models.sparse.sides import check_weights
from spectra_nsa.tokens.limits import learned_positions

SparseKind = Literal["splade", "inference_free"]


def has_masked_lm_head(folder: Path) -> bool:
    """Returns whether a checkpoint has a trained masked-LM head."""
    config = read_json_object(transformer_folder(folder) / "config.json")
    if config.get("model_type") in ("bert", SpectraConfig.model_type):
        return saved_head(folder) is not None
    return any(str(name).endswith("ForMaskedLM") for name in config.get("architectures") or [])


@no_library_bars()
def splade_from(checkpoint: str | Path, *, max_length: int | None = None) -> SpectraSparseEncoder:
    """Puts SPLADE pooling on a checkpoint. Without a masked-LM head, transformers initializes one at random.

    Args:
        checkpoint: a folder or Hub name: a masked LM, a sentence model, or a saved model of ours.
        max_length: the length at which texts are cut, in tokens; ``None`` for the checkpoint's.

    Raises:
        SpectraError: it cannot be opened, or a weight is NaN or infinite.
    """
    register()
    folder = resolve_folder(checkpoint)
    source = transformer_folder(folder)
    with opening(checkpoint), _no_load_report():
        transformer = Transformer(str(source), transformer_task="fill-mask", model_kwargs={"local_files_only": True})
        length = max_length or _declared_length(source) or transformer.max_seq_length
        limit = learned_positions(transformer.model)
        transformer.max_seq_length = min(length, limit) if length and limit else length
        model = SpectraSparseEncoder(modules=[transformer, SpladePooling("max")], similarity_fn_name="dot")
    check_weights(model, checkpoint)
    return model


def inference_free(model: SpectraSparseEncoder, weights_V: torch.Tensor) -> SpectraSparseEncoder:
    """Gives queries static token weights instead of inference; documents pass the model as before.

    Args:
        model: a model without routes.
        weights_V: the weight of each term, not negative; special tokens get 0.

    Raises:
        SpectraError: the tokenizer's ids have gaps.
    """
    _complete_vocabulary(model.tokenizer, len(weights_V))
    weights_V = weights_V.float().clamp_min(0).clone()
    weights_V[model.tokenizer.all_special_ids] = 0
    static = SparseStaticEmbedding(tokenizer=model.tokenizer, weight=weights_V)
    documents: list[Any] = list(model)
    router = Router.for_query_document(query_modules=[static], document_modules=documents)
    return SpectraSparseEncoder(modules=[router], similarity_fn_name="dot", prompts=dict(model.prompts))


def _complete_vocabulary(tokenizer: Any, size: int) -> None:
    """Names the rows of a padded vocabulary that have no token: the library expects one weight per token.

    Raises:
        SpectraError: there are gaps, or more tokens than rows.
    """
    known = tokenizer.get_vocab()
    fillers = (name for number in itertools.count() if (name := f"[unused{number}]") not in known)
    tokenizer.add_tokens(list(itertools.islice(fillers, max(0, size - len(known)))))
    ids = set(tokenizer.get_vocab().values())
    if ids != set(range(size)):
        raise SpectraError(
            f"an inference-free model needs a token for each of its {size:,} terms, but the tokenizer's ids have gaps "
            "or exceed them. Set sparse.kind=splade, or start from a checkpoint with its own tokenizer."
        )


def set_dropout(model: nn.Module, rate: float) -> None:
    """Sets the rate of all dropout layers, in memory only."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Keeps transformers from listing the weights of a head that is made anew afterwards."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)


def _declared_length(folder: Path) -> int | None:
    path = folder / "sentence_bert_config.json"
    if not path.is_file():
        return None
    length = read_json_object(path).get("max_seq_length")
    if length is not None and not isinstance(length, int):
        raise SpectraError(f"{path}: max_seq_length is {length!r}: expected a whole number.")
    return length
