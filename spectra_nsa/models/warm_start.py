"""Warm start: a Spectra model that returns the embeddings of a BERT-architecture checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling

from spectra_nsa.config.sections import SHAPE_OPTIONS
from spectra_nsa.config.shape_options import shape_fields
from spectra_nsa.core.console import no_library_bars
from spectra_nsa.core.errors import SpectraError, opening, unknown_name
from spectra_nsa.encoder.experts.spec import check_asked
from spectra_nsa.heads.spec import default_dims
from spectra_nsa.models.bert_adapter import POOLING, config_from_bert, encoder_from_bert, load_bert_weights
from spectra_nsa.models.checks import (
    check_folder,
    resolve_folder,
    transformer_folder,
    weight_shapes,
)
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.experts.upcycle import set_experts
from spectra_nsa.models.model import SpectraModel
from spectra_nsa.models.sentence import SpectraSentenceTransformer, build
from spectra_nsa.tokens.limits import capped_length, check_vocabulary

_SHAPE_OPTIONS = {name: option for name, option in SHAPE_OPTIONS.items() if option.warm_start}
OPTIONS = (
    *_SHAPE_OPTIONS,
    "spectral_modes",
    "normalize",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_seq_length",
    "revision",
)


@no_library_bars()
def warm_start(checkpoint: str | Path, **options: Any) -> SpectraSentenceTransformer:
    """Builds a Spectra model from a checkpoint. Until it is trained, it returns the checkpoint's embeddings.

    It inherits pooling, normalization, a linear Dense layer, prompts, similarity and max_seq_length.

    Args:
        checkpoint: a local folder or a Hub name, in plain BERT or sentence-transformers layout.
        **options: settings by name. Parts that the checkpoint lacks are exact no-ops until trained: `spectral` (with
            `mixer`, `spectral_dim`, `spectral_modes`, `entropy_every`), `ffn` (``"moe"``: experts that start as copies,
            with `experts`, fields of `ExpertSpec`), `depth_mix`, `layer_routing`, `pooling_kinds`, `adapters` (with
            `adapter_size`), and `entity` (True adds the entity vector to `embedding`). Inherited settings are
            overridden by `pooling`, `normalize`, `semantic_dims` (Matryoshka sizes, largest first),
            `hidden_dropout_prob`, `attention_probs_dropout_prob` and `max_seq_length`. `revision` selects a Hub
            revision.

    Raises:
        UsageError: an option does not exist.
        SpectraError: the checkpoint is missing, damaged, of another architecture, or has a module that a Spectra
            model cannot express.
    """
    for name in options:
        if name not in OPTIONS:
            raise unknown_name("warm-start option", name, OPTIONS)
    folder = resolve_folder(checkpoint, revision=options.pop("revision", None))
    if check_folder(folder) == "spectra_nsa":
        raise SpectraError(f"{checkpoint} is already a Spectra model: open it with spectra_nsa.load.")
    with opening(checkpoint):
        source = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    shape = shape_fields(_SHAPE_OPTIONS, options)
    ffn, experts = shape.pop("ffn", None), shape.pop("experts", None)
    check_asked(ffn, experts)
    options = {name: value for name, value in options.items() if name not in _SHAPE_OPTIONS}
    max_seq_length = options.pop("max_seq_length", None)
    fields, dense = _read_modules(source, str(checkpoint))
    bert: Any = source[0].model
    _check_complete(folder, bert)
    check_vocabulary(source.tokenizer.get_vocab().values(), bert.config.vocab_size, checkpoint)
    if max_seq_length is None:
        max_seq_length = capped_length(source.max_seq_length, bert.config.max_position_embeddings, checkpoint)
    fields |= config_from_bert(bert.config.to_dict()) | {"max_length": max_seq_length} | options | shape
    model = SpectraModel(SpectraConfig(**fields))
    load_bert_weights(model.encoder, encoder_from_bert(bert.state_dict(), bert.config.num_hidden_layers))
    if dense is not None:
        model.semantic.projection.load_state_dict(dense.linear.state_dict())
    started = build(
        model.eval(),
        source.tokenizer,
        max_seq_length=max_seq_length,
        prompts=source.prompts,
        default_prompt_name=source.default_prompt_name,
        similarity=source.similarity_fn_name,
    )
    if ffn is not None:
        set_experts(started, experts)
    return started


def _read_modules(source: SentenceTransformer, checkpoint: str) -> tuple[dict[str, Any], Dense | None]:
    """Returns the config fields that the modules after the transformer set, and the linear layer, if any."""
    fields: dict[str, Any] = {"normalize": False}
    dense: Dense | None = None
    for module in list(source)[1:]:
        if isinstance(module, Pooling):
            fields |= _read_pooling(module, checkpoint)
        elif isinstance(module, Normalize) and module is source[-1]:
            fields["normalize"] = True
        elif isinstance(module, Dense) and dense is None and _is_linear(module):
            dense = module
            fields |= {
                "semantic_projection": True,
                "semantic_bias": module.bias,
                "semantic_dims": default_dims(module.out_features),
            }
        else:
            raise SpectraError(
                f"{checkpoint} has the module {type(module).__name__}, which a Spectra model cannot reproduce exactly. "
                "Supported: Transformer, Pooling, one linear Dense (no activation), and Normalize as the last module."
            )
    if not isinstance(source[0], Transformer):
        raise SpectraError(
            f"{checkpoint} starts with the module {type(source[0]).__name__}; it must start with Transformer."
        )
    return fields, dense


def _is_linear(module: Dense) -> bool:
    return isinstance(module.activation_function, torch.nn.Identity) and not module.use_residual


def _read_pooling(module: Pooling, checkpoint: str) -> dict[str, Any]:
    """Returns the config fields that a pooling module sets."""
    modes = (module.pooling_mode,) if isinstance(module.pooling_mode, str) else tuple(module.pooling_mode)
    if modes not in POOLING:
        supported = ", ".join("+".join(names) for names in POOLING)
        raise SpectraError(f"{checkpoint} pools by {'+'.join(modes)}, which is not supported. Supported: {supported}.")
    return {"pooling": POOLING[modes], "pooling_skips_prompt": not module.include_prompt}


def _check_complete(folder: Path, bert: torch.nn.Module) -> None:
    """Checks that a checkpoint's files hold all weights, since transformers fills missing ones with random values."""
    shapes = weight_shapes(transformer_folder(folder))
    if shapes is None:
        return
    present = {name.removeprefix("bert.").replace("gamma", "weight").replace("beta", "bias") for name in shapes}
    missing = [name for name in bert.state_dict() if not name.startswith("pooler.") and name not in present]
    if missing:
        raise SpectraError(
            f"{folder} lacks {len(missing)} weights that its config.json requires, such as {missing[0]}: the files are "
            "incomplete or belong to another model."
        )
