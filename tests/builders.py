"""Folders of small BERT models with random weights, made in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizerFast

from spectra_nsa.config.terms import TERM_FACTS

DENSE_TERMS = {  # of models without experts
    name: facts for name, facts in TERM_FACTS.items() if facts.model_kind == "dense" and not facts.routing
}
WORDS = (
    "the a of to and in open close file read write socket list sort text model token vector query document"
).split()


def bert_folder(
    folder: Path,
    *,
    pooling: str | tuple[str, ...] = "mean",
    normalize: bool = True,
    prompts: dict[str, str] | None = None,
    include_prompt: bool = True,
    dense: int | None = None,
    activation: torch.nn.Module | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Writes a sentence-transformers folder around a random BERT and returns its path.

    Args:
        folder: where to; the model is its subfolder `model`.
        pooling: one or more of sentence-transformers' pooling modes.
        normalize: whether the embeddings have length 1.
        prompts: by name.
        include_prompt: whether the tokens of the prompt are pooled too.
        dense: output size of a dense layer after the pooling; None for no such layer.
        activation: of the dense layer; None for the default of sentence-transformers.
        seed: of the weights.
        config: fields of `BertConfig`; the default is 2 layers of size 32 with 4 heads, and 64 positions.
    """
    torch.manual_seed(seed)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghijklmnopqrstuvwxyz:()_."]
    vocabulary += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    shape["max_position_embeddings"] = 64
    bert = BertModel(BertConfig(vocab_size=len(vocabulary), **(shape | config)))
    for (
        name,
        weight,
    ) in bert.named_parameters():  # constants at first; random values show mistakes
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=1.0 if name.endswith("LayerNorm.weight") else 0.0, std=0.1)
    inner = folder / "bert"
    bert.save_pretrained(inner)
    words = folder / "vocab.txt"
    words.write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(vocab=str(words)).save_pretrained(inner)
    modules: list[torch.nn.Module] = [Transformer(str(inner), max_seq_length=48)]
    modules.append(Pooling(modules[0].get_embedding_dimension(), pooling, include_prompt=include_prompt))
    if dense:
        modules.append(Dense(modules[1].pooling_output_dimension, dense, activation_function=activation))
    if normalize:
        modules.append(Normalize())
    out = folder / "model"
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save_pretrained(str(out))
    return out


def set_weight(folder: Path, name: str, row: int, value: float) -> Path:
    """Sets a row of a saved weight, such as the vector of one token, to a value."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (found,) = [key for key in weights if key.endswith(name)]
    weights[found][row] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def token_id(word: str) -> int:
    """Returns the id of one of `WORDS` in the vocabulary of `bert_folder`."""
    return 5 + WORDS.index(word)


def tiny_masked_lm(folder: Path, *, seed: int = 0, bias: float = -1.0) -> Path:
    """Writes a masked LM of 2 layers with random weights whose logits differ enough to be sparse after ReLU.

    Args:
        folder: is created.
        seed: of the weights.
        bias: of every logit.
    """
    torch.manual_seed(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *WORDS, *letters[1:], *(f"##{letter}" for letter in letters)]
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(pieces), max_position_embeddings=40, initializer_range=0.5, **shape)
    model = BertForMaskedLM(config)
    with torch.no_grad():
        model.cls.predictions.bias.fill_(bias)
    model.save_pretrained(folder)
    BertTokenizerFast(vocab={piece: at for at, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


def same_weights(first: Any, second: Any) -> bool:
    """Returns whether two models of ours have equal weights under equal names."""
    states = [model.spectra.state_dict() for model in (first, second)]
    return states[0].keys() == states[1].keys() and all(torch.equal(w, states[1][n]) for n, w in states[0].items())
