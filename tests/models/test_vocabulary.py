"""A new vocabulary for a trained model: the old pieces that each new piece takes, and the resulting model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

import spectra_nsa as sp
from spectra_nsa.models.masked_lm import warm_start_masked_lm
from spectra_nsa.models.vocabulary import (
    Piece,
    Transfer,
    match_vocabularies,
    pieces_of,
    refit_tables,
    same_tokenizer,
    with_vocabulary,
)
from spectra_nsa.tokens.kinds import SPECIAL
from spectra_nsa.tokens.train import TokenizerSpec, train_tokenizer
from tests.builders import WORDS
from tests.models.test_masked_lm import bert_checkpoint

ROLES: dict[str, Any] = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def wordpiece(*pieces: str, lowercase: bool = True) -> BertTokenizerFast:
    names = [*SPECIAL, *pieces]
    return BertTokenizerFast(vocab={name: number for number, name in enumerate(names)}, do_lower_case=lowercase)


def metaspace(*pieces: str) -> PreTrainedTokenizerFast:
    vocabulary = [(name, 0.0) for name in (*SPECIAL, *pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, 1, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **ROLES)


def byte_level(*pieces: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate((*SPECIAL, *pieces))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **ROLES)


def parts(old: Any, new: Any) -> dict[str, list[str]]:
    """Maps each new piece to the old pieces that it takes, without special tokens."""
    ids = match_vocabularies(old, new).parts
    names = new.convert_ids_to_tokens(list(range(len(new))))
    return {names[number]: old.convert_ids_to_tokens(ids[number]) for number in range(5, len(new))}


def test_pieces_are_read_from_every_kind_of_marker() -> None:
    assert pieces_of(wordpiece("open", "##ing"))[5:] == [Piece("open", True), Piece("ing", False)]
    assert pieces_of(metaspace("▁open", "ing", "▁", "<0x41>", "<0xE6>"))[5:] == [
        Piece("open", True), Piece("ing", False), Piece("", True), Piece("A", False), None,
    ]  # fmt: skip
    assert pieces_of(byte_level("Ġopen", "ing", "æĹ", "Ã©"))[5:] == [
        Piece("open", True), Piece("ing", False), None, Piece("é", False),
    ]  # fmt: skip
    assert pieces_of(wordpiece("open"))[:5] == [None] * 5
    words = train_tokenizer(["open file"], TokenizerSpec(kind="word", vocab_size=9, min_frequency=1))
    assert set(pieces_of(words)[5:]) == {Piece("open", True), Piece("file", True)}


def test_pieces_match_across_markers_positions_and_case() -> None:
    old = wordpiece("open", "ing", "##ing", "##ly", ".", "##.", "up")
    assert parts(old, metaspace("▁open", "ing", "▁ing", "▁ly", ".", "▁Up", "up")) == {
        "▁open": ["open"],
        "ing": ["##ing"],
        "▁ing": ["ing"],
        "▁ly": ["##ly"],  # exists only in the other position
        ".": ["."],  # not ##., which BERT never produces
        "▁Up": ["up"],
        "up": ["up"],
    }


def test_case_matters_if_the_old_vocabulary_is_cased() -> None:
    old = wordpiece("Polish", "polish", "Paris", lowercase=False)
    assert parts(old, metaspace("▁Polish", "▁polish", "▁paris")) == {
        "▁Polish": ["Polish"], "▁polish": ["polish"], "▁paris": ["Paris"],
    }  # fmt: skip


def test_a_new_piece_takes_the_parts_that_its_text_splits_into() -> None:
    old = wordpiece("token", "##izer", "##s", "iz", "##iz", "##er", "'", "s")
    assert parts(old, metaspace("▁tokenizers", "izer", "izers", "izs", "'s", "日", "日s")) == {
        "▁tokenizers": ["token", "##izer", "##s"],
        "izer": ["##izer"],
        "izers": ["##iz", "##er", "##s"],  # split as a separate word; then the first part becomes a continuation
        "izs": ["##iz", "##s"],
        "'s": ["'", "s"],
        "日": ["[UNK]"],
        "日s": ["s"],  # the known part
    }


def test_blank_pieces_take_the_mean_and_character_fragments_the_unknown_token() -> None:
    assert parts(wordpiece("a"), metaspace("▁", "<0xE6>", "<0x61>")) == {"▁": [], "<0xE6>": ["[UNK]"], "<0x61>": ["a"]}


def test_special_tokens_match_by_role() -> None:
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a"]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    roberta = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        mask_token="<mask>", additional_special_tokens=["<extra>"],
    )  # fmt: skip
    assert match_vocabularies(wordpiece("a"), roberta).parts == [[2], [0], [3], [1], [4], [5], []]
    assert match_vocabularies(roberta, wordpiece("a")).parts == [[1], [3], [0], [2], [4], [5]]


def test_rows_are_combined_by_mean_or_maximum_or_take_the_default() -> None:
    table = torch.tensor([[1.0, 4.0], [3.0, 0.0], [5.0, 5.0]])
    transfer = Transfer([[0], [], [0, 1], [2]])
    assert transfer.convert(table, default=table.mean(0)).tolist() == [[1, 4], [3, 3], [2, 2], [5, 5]]
    assert transfer.convert(table, default=0.0, mode="max").tolist() == [[1, 4], [0, 0], [3, 4], [5, 5]]
    assert transfer.summary == {"pieces": 4, "taken": 2, "averaged": 1, "without": 1}


def test_the_same_pieces_in_another_order_give_the_same_vectors(make_bert: Callable[..., Path]) -> None:
    source = make_bert(prompts={"query": "read "})
    model = sp.warm_start(source)
    model.max_seq_length = 12
    old = model.tokenizer
    names = sorted(old.get_vocab(), key=old.get_vocab().get)
    new = wordpiece(*reversed(names[5:]))
    texts = ["open a file", "xyz: sort (the) list_of vectors" * 2, "日"]
    before = model.encode(texts, prompt_name="query")
    model.spectra.entity.prior.idf.copy_(torch.rand(model.spectra.config.vocab_size))
    entity = model.encode(texts, outputs=["entity"])["entity"]
    changed, transfer = with_vocabulary(model, new)
    assert transfer.summary["taken"] == len(names) and changed.max_seq_length == 12
    assert np.abs(changed.encode(texts, prompt_name="query") - before).max() <= 1e-6
    assert np.abs(changed.encode(texts, outputs=["entity"])["entity"] - entity).max() <= 1e-6


def test_only_the_vocabulary_tables_change_and_the_model_can_be_reloaded(
    make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    model = sp.warm_start(make_bert())
    before = {name: value.clone() for name, value in model.spectra.state_dict().items()}
    texts = [f"{a} {b}s" for a in WORDS for b in WORDS]
    tokenizer = train_tokenizer(texts, TokenizerSpec(vocab_size=400, max_length=20))
    changed, _ = with_vocabulary(model, tokenizer)
    state = changed.spectra.state_dict()
    resized = {"encoder.embeddings.tokens.weight", "entity.prior.idf"}
    assert {name for name in before if not torch.equal(state[name], before[name])} == resized
    assert all(len(state[name]) == len(tokenizer) == changed.spectra.config.vocab_size for name in resized)
    changed.save_pretrained(str(tmp_path / "saved"))
    reloaded = sp.load(tmp_path / "saved")
    assert same_tokenizer(reloaded.tokenizer, tokenizer)
    assert np.array_equal(reloaded.encode(texts[:5]), changed.encode(texts[:5]))


def test_a_masked_lm_stays_tied_and_its_bias_is_converted(tmp_path: Path) -> None:
    bert_checkpoint(tmp_path / "bert")
    model = warm_start_masked_lm(tmp_path / "bert")
    vectors, bias = model.get_input_embeddings().weight.detach().clone(), model.lm_head.bias.detach().clone()
    refit_tables(model, Transfer([[3], [4, 5], []]), pad_token_id=0)
    assert model.lm_head.decoder.weight is model.model.encoder.embeddings.tokens.weight
    assert torch.allclose(model.lm_head.decoder.weight[1], vectors[4:6].mean(0))
    assert torch.allclose(model.lm_head.bias, torch.stack([bias[3], bias[4:6].mean(), bias.mean()]))
    assert model(torch.tensor([[1, 2]])).logits.shape == (1, 2, 3)
    assert model.config.vocab_size == model.model.config.vocab_size == 3


@pytest.mark.parametrize("pieces", ["a b", "b a"])
def test_tokenizers_are_equal_regardless_of_truncation_and_padding(pieces: str) -> None:
    first, second = wordpiece("a", "b"), wordpiece(*pieces.split())
    second.model_max_length = 7
    second("a", padding="max_length", truncation=True)
    assert same_tokenizer(first, second) == (pieces == "a b")
