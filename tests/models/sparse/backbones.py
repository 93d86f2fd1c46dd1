"""Folders of small masked LMs of several architectures, with random weights and tokenizers made in code."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    MPNetConfig,
    MPNetForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from spectra_nsa.models.masked_lm import save_masked_lm, with_masked_lm_head
from spectra_nsa.models.warm_start import warm_start
from tests.builders import WORDS, tiny_masked_lm

NAMES = ("bert", "bert without head", "roberta", "distilbert", "modernbert", "mpnet", "spectra")
_SHAPE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def masked_lm_folder(name: str, folder: Path) -> Path:
    """Writes a masked LM of an architecture, one of `NAMES`, and returns its path."""
    if name == "bert":
        return tiny_masked_lm(folder / "model")
    if name == "bert without head":
        return _bert(folder / "model")
    if name == "spectra":
        return _spectra(folder)
    torch.manual_seed(0)
    tokenizer = byte_tokenizer() if name in ("roberta", "modernbert") else word_tokenizer()
    size = len(tokenizer)
    shape = _SHAPE | {"vocab_size": size, "max_position_embeddings": 64, "pad_token_id": tokenizer.pad_token_id}
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    if name == "roberta":
        model = RobertaForMaskedLM(RobertaConfig(**shape, **ends, initializer_range=0.5))
    elif name == "mpnet":
        model = MPNetForMaskedLM(MPNetConfig(**shape, **ends, initializer_range=0.5))
    elif name == "modernbert":
        cut = {"global_attn_every_n_layers": 2, "local_attention": 16, "initializer_range": 0.2}
        ids = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
        model = ModernBertForMaskedLM(ModernBertConfig(**shape, **ends, **ids, **cut))
    else:
        own = {"dim": 24, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "initializer_range": 0.5}
        model = DistilBertForMaskedLM(DistilBertConfig(vocab_size=size, max_position_embeddings=64, **own))
    with torch.no_grad():
        decoder = model.get_output_embeddings()
        if decoder.bias is not None:
            decoder.bias.fill_(-0.5)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def word_tokenizer() -> BertTokenizerFast:
    """Returns an uncased WordPiece tokenizer over `WORDS` and letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *WORDS, *letters[1:], *(f"##{letter}" for letter in letters)]
    return BertTokenizerFast(vocab={piece: at for at, piece in enumerate(pieces)})


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a byte-level BPE tokenizer in RoBERTa's manner, which knows bytes and `WORDS`."""
    special = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                merges.append((word[: end - 1], word[end - 1]))
                pieces.append(word[:end])
    tokenizer = Tokenizer(models.BPE(vocab={piece: at for at, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, special, strict=True)))


def _bert(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    shape = _SHAPE | {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "initializer_range": 0.5}
    BertModel(BertConfig(**shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _spectra(folder: Path) -> Path:
    """Writes a masked LM on our own encoder with spectral attention, whose parts are no longer no-ops."""
    torch.manual_seed(0)
    sentence_model = warm_start(_bert(folder / "start"), spectral=True)
    masked_lm = with_masked_lm_head(sentence_model, None)
    with torch.no_grad():
        for name, weight in masked_lm.named_parameters():
            if "gate" in name or name.startswith("lm_head"):
                weight.normal_(std=0.5)
    (folder / "model").mkdir()
    save_masked_lm(masked_lm, sentence_model, folder / "model")
    return folder / "model"
