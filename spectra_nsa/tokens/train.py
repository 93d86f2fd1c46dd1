"""A fast tokenizer trained on texts, in the form that our models and transformers load."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.core.files import atomic_folder, check_replaceable
from spectra_nsa.tokens.kinds import BYTES, DEFAULT_MIN_FREQUENCY, KINDS, SPECIAL, UNKNOWN, basic_alphabet

COVERAGE = 0.9995  # share of the characters that unigram's alphabet covers, as in SentencePiece; bytes stand for others
_BYTE_SCORE = -1e4  # a byte piece written out in a text loses against its characters, which are all in the alphabet
_FILES = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"}


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """What to train.

    Attributes:
        kind: ``"unigram"``, ``"wordpiece"``, ``"bpe"`` or ``"word"``.
        vocab_size: pieces at most, special ones and single bytes included.
        lowercase: whether texts are put into lower case.
        min_frequency: how often a word, or a pair of pieces to be joined, must occur; ``None`` for 2. Unigram chooses
            pieces by likelihood and has none.
        max_length: where texts are cut, in pieces.
    """

    kind: str = "unigram"
    vocab_size: int = 48_000
    lowercase: bool = True
    min_frequency: int | None = None
    max_length: int = 512

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind of tokenizer", self.kind, KINDS)
        if self.min_frequency is not None and not KINDS[self.kind].has_min_frequency:
            others = ", ".join(name for name, kind in KINDS.items() if kind.has_min_frequency)
            raise UsageError(f"{self.kind} has no least frequency: leave it out, or choose one of {others}.")


def train_tokenizer(texts: Iterable[str], spec: TokenizerSpec) -> PreTrainedTokenizerFast:
    """Trains a vocabulary, and puts BERT's special tokens and template around it.

    Unigram is Kudo's (2018), with SentencePiece's byte fallback and its default normalisation (NFKC, one space for
    white space of any kind); BPE is of bytes (Radford et al. 2019); WordPiece is trained as Hugging Face does it, by
    pair frequency. Pieces are what the texts support: of a small corpus there are fewer than asked for.

    Args:
        texts: gone through once, twice for unigram.
        spec: what to train.

    Raises:
        SpectraError: no text, or fewer pieces allowed than the kind needs at least.
    """
    if spec.kind == "unigram":
        tokenizer = _train_unigram(texts, spec)
    else:
        kind = KINDS[spec.kind]
        tokenizer = kind.blank(spec.lowercase)
        trainer = kind.trainer(
            spec.vocab_size, spec.min_frequency or DEFAULT_MIN_FREQUENCY, basic_alphabet(spec.lowercase)
        )
        seen = _CheckedTexts(texts)
        tokenizer.train_from_iterator(seen, trainer)
        seen.check()
        if (size := tokenizer.get_vocab_size()) > spec.vocab_size:
            raise _too_few(spec, size)
    return _as_fast_tokenizer(tokenizer, spec)


class _CheckedTexts:
    """Passes texts on and knows whether any was more than white space."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts, self.any = texts, False

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.any = self.any or bool(text.strip())
            yield text

    def check(self) -> None:
        """Raises `SpectraError` where there were none."""
        if not self.any:
            raise SpectraError("there are no texts to train a tokenizer on.")


def _too_few(spec: TokenizerSpec, needed: int) -> SpectraError:
    return SpectraError(
        f"{spec.vocab_size:,} pieces are too few for {spec.kind} on these texts: its special tokens and single "
        f"characters or bytes alone are {needed:,}. Ask for more than that with --vocab-size."
    )


def _train_unigram(texts: Iterable[str], spec: TokenizerSpec) -> Tokenizer:
    tokenizer = KINDS["unigram"].blank(spec.lowercase)
    normalise = tokenizer.normalizer.normalize_str
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalise(text))
    counts.pop(" ", None)
    if not counts:
        raise SpectraError("there are no texts to train a tokenizer on.")
    basic = basic_alphabet(spec.lowercase)
    alphabet = _covering_alphabet(counts, basic)
    needed = len(SPECIAL) + len(BYTES) + len(alphabet) + 1  # and the mark of a space
    if spec.vocab_size < needed:
        raise _too_few(spec, needed)
    rare = {ord(character): " " for character in counts.keys() - alphabet}
    trainer = KINDS["unigram"].trainer(spec.vocab_size - len(BYTES), DEFAULT_MIN_FREQUENCY, basic)
    tokenizer.train_from_iterator((normalise(text).translate(rare) for text in texts), trainer)
    pieces = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    special, learned = pieces[: len(SPECIAL)], pieces[len(SPECIAL) :]
    learned = _drop_least_likely(learned, spec.vocab_size - len(BYTES) - len(SPECIAL))
    vocabulary = [*special, *((piece, _BYTE_SCORE) for piece in BYTES), *learned]
    tokenizer.model = models.Unigram(vocabulary, SPECIAL.index(UNKNOWN), True)
    return tokenizer


def _drop_least_likely(pieces: list[tuple[str, float]], size: int) -> list[tuple[str, float]]:
    """Without the least likely pieces beyond `size`: the trainer may keep a few more. Single characters stay."""
    longer = sorted((piece for piece in pieces if len(piece[0]) > 1), key=lambda piece: piece[1])
    extra = {piece for piece, _ in longer[: max(0, len(pieces) - size)]}
    return [piece for piece in pieces if piece[0] not in extra]


def _covering_alphabet(counts: Counter[str], basic: list[str]) -> set[str]:
    """The basic characters, and the most frequent ones up to `COVERAGE` of all."""
    kept, covered, wanted = set(basic), 0, COVERAGE * counts.total()
    for character, count in counts.most_common():
        if covered >= wanted:
            break
        kept.add(character)
        covered += count
    return kept


def _as_fast_tokenizer(tokenizer: Tokenizer, spec: TokenizerSpec) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    ids = {name: SPECIAL.index(name) for name in SPECIAL}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    tokenizer.enable_truncation(spec.max_length)
    tokenizer.enable_padding(pad_id=ids["[PAD]"], pad_token="[PAD]")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=spec.max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **{f"{name.strip('[]').lower()}_token": name for name in SPECIAL},
    )


def check_tokenizer_folder(path: str | Path) -> None:
    """That a folder to be written is absent, empty, or a tokenizer's and nothing more: a model's is not replaced.

    Raises:
        UsageError: something else stands there.
    """
    path = Path(path)
    check_replaceable(path, "tokenizer.json")
    others = sorted(item.name for item in path.iterdir() if item.name not in _FILES) if path.is_dir() else []
    if others:
        raise UsageError(f"{path} holds more than a tokenizer ({others[0]}), which would be lost. Name another folder.")


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Writes the folder, whole or not at all, and only over a tokenizer's."""
    check_tokenizer_folder(folder)
    with atomic_folder(folder) as temporary:
        tokenizer.save_pretrained(str(temporary))
