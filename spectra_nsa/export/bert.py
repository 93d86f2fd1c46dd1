"""BERT-shaped models as plain BERT folders that load without Spectra-NSA."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertForMaskedLM, BertModel

from spectra_nsa.core.console import no_library_bars
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import atomic_folder, check_replaceable, read_json, read_json_object, write_json
from spectra_nsa.heads.spec import ModelSpec
from spectra_nsa.models.bert_adapter import config_to_bert, encoder_to_bert, masked_lm_head_to_bert
from spectra_nsa.models.checks import transformer_folder
from spectra_nsa.models.model import SpectraForMaskedLM, SpectraModel
from spectra_nsa.models.sentence import SpectraSentenceTransformer

BERT_POOLING = ("mean", "cls", "max", "mean_max")  # kinds that sentence-transformers can express


@no_library_bars()
def export_bert(model: SpectraSentenceTransformer, folder: str | Path) -> Path:
    """Writes `embedding` as a plain sentence-transformers folder, which TEI and Infinity load too.

    The folder holds plain BERT, Pooling, and, if the model has them, Dense and Normalize.

    Args:
        model: a model with BERT's encoder (post-norm, absolute positions, GELU, plain attention), whose pooling has
            no weights.
        folder: target folder. An earlier export that is already there is replaced once the new one is complete.

    Returns:
        the folder.

    Raises:
        SpectraError: plain BERT cannot express the model.
        UsageError: `folder` exists and does not hold a model, or holds a Spectra model.
    """
    _check_target(folder, "modules.json")
    spectra = model.spectra
    check_bert_shape(spectra.config)
    with atomic_folder(folder) as temporary:
        source = temporary / "source"
        _to_bert(spectra).save_pretrained(source)
        model.tokenizer.save_pretrained(source)
        plain = SentenceTransformer(
            modules=[Transformer(str(source)), *_modules_after_bert(spectra)],
            prompts={name: text or "" for name, text in model.prompts.items()},
            default_prompt_name=model.default_prompt_name,
            similarity_fn_name=model.similarity_fn_name,
            device="cpu",
        )
        plain.save_pretrained(str(temporary), create_model_card=False)
        _name_modules(temporary / "modules.json")
        shutil.rmtree(source)
    return Path(folder)


@no_library_bars()
def export_bert_masked_lm(model: SpectraForMaskedLM, tokenizer: Any, folder: str | Path) -> Path:
    """Writes a plain `BertForMaskedLM` folder.

    Args:
        model: a masked LM with BERT's encoder (post-norm, absolute positions, GELU, plain attention).
        tokenizer: tokenizer to save with it.
        folder: target folder. An earlier export that is already there is replaced once the new one is complete.

    Returns:
        the folder.

    Raises:
        SpectraError: plain BERT cannot express the model.
        UsageError: `folder` exists and does not hold a model, or holds a Spectra model.
    """
    _check_target(folder, "config.json")
    check_bert_shape(model.config, pooled=False)
    bert = BertForMaskedLM(BertConfig(**config_to_bert(model.config)))
    encoder = encoder_to_bert(model.model.encoder.state_dict(), model.config.num_hidden_layers)
    weights = {f"bert.{name}": value for name, value in encoder.items()}
    bert.load_state_dict(weights | masked_lm_head_to_bert(model.lm_head.state_dict()), strict=False)
    bert.tie_weights()
    with atomic_folder(folder) as temporary:
        bert.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return Path(folder)


def _name_modules(path: Path) -> None:
    """Names the modules as all versions of sentence-transformers know them: version 6 moved them."""
    modules = read_json(path)
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rpartition('.')[2]}"
    write_json(path, modules)


def check_bert_shape(spec: ModelSpec, *, pooled: bool = True) -> None:
    """Checks that plain BERT can express a model.

    Args:
        spec: the model's shape.
        pooled: whether the text vectors are exported; False for token states only.

    Raises:
        SpectraError: it cannot; the message names the fields that differ.
    """
    required = {
        "norm": "post",
        "position": "absolute",
        "ffn": "gelu",
        "attention": "plain",
        "depth_mix": False,
        "layer_routing": False,
    }
    if pooled:
        required |= {"entity": False, "pooling_kinds": None, "adapters": 0}
    if pooled and spec.pooling not in BERT_POOLING:
        required["pooling"] = " or ".join(BERT_POOLING)
    wrong = {name: getattr(spec, name) for name, value in required.items() if getattr(spec, name) != value}
    if wrong or not spec.type_vocab_size:
        fields = ", ".join(f"{name}: {value}" for name, value in wrong.items()) or "type_vocab_size: 0"
        raise SpectraError(f"only a BERT-shaped model can be exported as plain BERT; this one has {fields}.")


def _check_target(folder: str | Path, mark: str) -> None:
    """Checks that an export may be written to a folder: it loses the heads of a Spectra model, so it replaces none.

    Raises:
        UsageError: the folder holds a Spectra model, or something else than a model.
    """
    check_replaceable(folder, mark)
    config = transformer_folder(Path(folder)) / "config.json"
    if config.is_file() and read_json_object(config).get("model_type") == "spectra_nsa":
        raise UsageError(
            f"{folder} holds a Spectra model, whose heads a plain BERT folder does not keep. Name another folder for "
            f"the export, such as {folder}-bert."
        )


def _to_bert(spectra: SpectraModel) -> BertModel:
    """Returns the encoder as plain BERT."""
    bert = BertModel(BertConfig(**config_to_bert(spectra.config)))
    weights = encoder_to_bert(spectra.encoder.state_dict(), spectra.config.num_hidden_layers)
    bert.load_state_dict(weights, strict=False)
    assert bert.pooler is not None  # unused; written so that no weight is missing when the folder is loaded
    for weight in bert.pooler.parameters():
        torch.nn.init.zeros_(weight)
    return bert


def _modules_after_bert(spectra: SpectraModel) -> list[torch.nn.Module]:
    """Returns pooling, projection and normalization as sentence-transformers' modules."""
    config = spectra.config
    mode = ("mean", "max") if config.pooling == "mean_max" else config.pooling
    modules: list[torch.nn.Module] = [Pooling(config.hidden_size, mode, include_prompt=not config.pooling_skips_prompt)]
    if config.semantic_projection:
        dense = Dense(config.pooled_size, config.projection_dim, config.semantic_bias, torch.nn.Identity())
        dense.linear.load_state_dict(spectra.semantic.projection.state_dict())
        modules.append(dense)
    if config.normalize:
        modules.append(Normalize())
    return modules
