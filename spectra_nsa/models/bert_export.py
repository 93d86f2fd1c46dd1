"""A BERT-shaped model as a folder that needs nothing of ours: plain BERT + Pooling (+ Dense) (+ Normalize)."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertModel

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_folder, check_replaceable
from spectra_nsa.models.bert_adapter import config_to_bert, encoder_to_bert
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.sentence import SpectraSentenceTransformer

BERT_POOLING = ("mean", "cls", "max", "mean_max")  # what sentence-transformers pools by, too


def export_bert(model: SpectraSentenceTransformer, folder: str | Path) -> Path:
    """Writes `embedding` as a plain sentence-transformers folder, which TEI, Infinity and the like load too.

    Args:
        model: a model whose backbone is BERT's shape (post-norm, absolute positions, gelu, plain attention) and which
            pools without weights of its own.
        folder: where to; a model's folder that stands there is replaced when all is written.

    Returns:
        the folder.

    Raises:
        SpectraError: the backbone has another shape.
        UsageError: something else than a model stands at `folder`.
    """
    check_replaceable(folder, "modules.json")
    spectra = model.spectra
    config = spectra.config
    refuse_other_shapes(config)
    bert = BertModel(BertConfig(**config_to_bert(config)))
    bert.load_state_dict(encoder_to_bert(spectra.encoder.state_dict(), config.num_hidden_layers), strict=False)
    assert bert.pooler is not None  # nothing here uses it; it is written so that no weight is missing
    for weight in bert.pooler.parameters():
        torch.nn.init.zeros_(weight)
    with atomic_folder(folder) as temporary:
        source = temporary / "source"
        bert.save_pretrained(source)
        model.tokenizer.save_pretrained(source)
        modules: list[torch.nn.Module] = [Transformer(str(source))]
        mode = ("mean", "max") if config.pooling == "mean_max" else config.pooling
        modules.append(Pooling(config.hidden_size, mode, include_prompt=not config.pooling_skips_prompt))
        if config.semantic_projection:
            dense = Dense(config.pooled_size, config.projection_dim, config.semantic_bias, torch.nn.Identity())
            dense.linear.load_state_dict(spectra.semantic.projection.state_dict())
            modules.append(dense)
        if config.normalize:
            modules.append(Normalize())
        plain = SentenceTransformer(
            modules=modules,
            prompts={name: text or "" for name, text in model.prompts.items()},
            default_prompt_name=model.default_prompt_name,
            similarity_fn_name=model.similarity_fn_name,
            device="cpu",
        )
        plain.save_pretrained(str(temporary), create_model_card=False)
        shutil.rmtree(source)
    return Path(folder)


def refuse_other_shapes(config: SpectraConfig, *, pooled: bool = True) -> None:
    """Refuses what plain BERT cannot express.

    Args:
        config: of the model.
        pooled: whether the vectors are written too, and not the token states alone.

    Raises:
        SpectraError: the message names what differs.
    """
    wanted = {
        "norm": "post",
        "position": "absolute",
        "ffn": "gelu",
        "attention": "plain",
        "depth_mix": False,
    }
    if pooled:
        wanted["entity"] = False
    if pooled and config.pooling not in BERT_POOLING:
        wanted["pooling"] = " or ".join(BERT_POOLING)
    wrong = {name: getattr(config, name) for name, value in wanted.items() if getattr(config, name) != value}
    if wrong or not config.type_vocab_size:
        found = ", ".join(f"{name}: {value}" for name, value in wrong.items()) or "type_vocab_size: 0"
        raise SpectraError(f"only a BERT-shaped model can be written as plain BERT; this one has {found}.")
