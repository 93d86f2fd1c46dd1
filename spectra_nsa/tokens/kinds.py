"""The kinds of tokenizer that can be trained: normalizer, pre-tokenizer, model and decoder of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # in the order of their ids
UNKNOWN = "[UNK]"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))  # SentencePiece's pieces for characters outside the alphabet
SPACE_MARK = "▁"
DEFAULT_MIN_FREQUENCY = 2  # least occurrences of a word or a pair of pieces


@dataclass(frozen=True)
class TokenizerKind:
    """One kind of tokenizer.

    Attributes:
        blank: maps whether to lowercase to a tokenizer without a vocabulary.
        trainer: maps the vocabulary size, the least frequency and the characters that are always pieces to a trainer;
            for unigram the size excludes the bytes.
        lossless: whether decoding returns the normalized text for every text.
        has_min_frequency: whether the trainer has a least frequency.
    """

    blank: Callable[[bool], Tokenizer]
    trainer: Callable[[int, int, list[str]], Any]
    lossless: bool
    has_min_frequency: bool = True


def basic_alphabet(lowercase: bool) -> list[str]:
    """Returns the printable ASCII characters, without capitals if texts are lowercased."""
    return [chr(code) for code in range(33, 127) if not (lowercase and chr(code).isupper())]


def _unigram(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            *([normalizers.Lowercase()] if lowercase else []),
            normalizers.Replace(SPACE_MARK, " "),  # a literal mark would decode to a space
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE_MARK, "always", True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _bpe(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else []), normalizers.Prepend(" ")]
    tokenizer.normalizer = normalizers.Sequence(steps)  # the space: the first word has the same pieces as any other
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    return tokenizer


def _wordpiece(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _word(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _unigram_trainer(size: int, frequency: int, alphabet: list[str]) -> Any:
    return trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        unk_token=UNKNOWN,
        initial_alphabet=alphabet,
        show_progress=False,
    )


def _bpe_trainer(size: int, frequency: int, alphabet: list[str]) -> Any:
    return trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=frequency,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )


def _wordpiece_trainer(size: int, frequency: int, alphabet: list[str]) -> Any:
    return trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=frequency,
        special_tokens=list(SPECIAL),
        limit_alphabet=1_000,
        initial_alphabet=alphabet,
        show_progress=False,
    )


def _word_trainer(size: int, frequency: int, alphabet: list[str]) -> Any:
    return trainers.WordLevelTrainer(
        vocab_size=size, min_frequency=frequency, special_tokens=list(SPECIAL), show_progress=False
    )


KINDS = {
    "unigram": TokenizerKind(_unigram, _unigram_trainer, lossless=True, has_min_frequency=False),
    "wordpiece": TokenizerKind(_wordpiece, _wordpiece_trainer, lossless=False),
    "bpe": TokenizerKind(_bpe, _bpe_trainer, lossless=True),
    "word": TokenizerKind(_word, _word_trainer, lossless=False),
}


def with_normalizer(reloaded: Any, tokenizer: Any) -> Any:
    """Returns a tokenizer as it is reloaded from its folder, in a class that keeps its normalizer.

    Some classes rebuild the normalizer from their settings. Then lower case that a sentence-transformers folder asks
    for (`do_lower_case`) would be lost when the model is saved.

    Args:
        reloaded: the tokenizer, saved and opened again.
        tokenizer: the tokenizer before that.
    """
    from transformers import PreTrainedTokenizerFast

    backend = tokenizer.backend_tokenizer
    if repr(reloaded.backend_tokenizer.normalizer) == repr(backend.normalizer):
        return reloaded
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=tokenizer.model_input_names,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **tokenizer.special_tokens_map,
    )
