"""Training of fast tokenizers in the format that our models and transformers load."""

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
from spectra_nsa.core.strings import is_blank
from spectra_nsa.tokens.kinds import BYTES, DEFAULT_MIN_FREQUENCY, KINDS, SPECIAL, UNKNOWN, basic_alphabet

COVERAGE = 0.9995  # share of the characters in unigram's alphabet, as in SentencePiece; others become bytes
_BYTE_SCORE = -1e4  # so low that a literal <0x41> in a text is split into its characters instead
_FILES = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"}


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """The tokenizer to train.

    Attributes:
        kind: ``"unigram"``, ``"wordpiece"``, ``"bpe"`` or ``"word"``.
        vocab_size: the most pieces, special tokens and single bytes included.
        lowercase: whether texts are lowercased.
        min_frequency: the least occurrences of a word, or of a pair of pieces to merge; ``None`` for 2. Unigram chooses
            pieces by likelihood and has none.
        max_length: the length at which texts are truncated, in pieces.
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
            raise UsageError(
                f"a {self.kind} tokenizer has no least frequency. Leave out --min-frequency, or choose {others}."
            )


def train_tokenizer(texts: Iterable[str], spec: TokenizerSpec) -> PreTrainedTokenizerFast:
    """Trains a tokenizer with BERT's special tokens and template.

    Unigram is Kudo's (2018), with SentencePiece's byte fallback and default normalization (NFKC, white space becomes
    one space). BPE works on bytes (Radford et al. 2019). WordPiece is trained by pair frequency, as in Hugging Face's
    library. A small corpus may give fewer pieces than `spec` allows.

    Args:
        texts: iterated once, for unigram twice.
        spec: the tokenizer to train.

    Raises:
        SpectraError: there is no text, or `spec` allows fewer pieces than the kind needs.
    """
    if spec.kind == "unigram":
        tokenizer = _train_unigram(texts, spec)
    else:
        kind = KINDS[spec.kind]
        tokenizer = kind.blank(spec.lowercase)
        trainer = kind.trainer(
            spec.vocab_size, spec.min_frequency or DEFAULT_MIN_FREQUENCY, basic_alphabet(spec.lowercase)
        )
        checked = _CheckedTexts(texts)
        tokenizer.train_from_iterator(checked, trainer)
        checked.check()
        if (size := tokenizer.get_vocab_size()) > spec.vocab_size:
            raise _too_few(spec, size)
    return _as_fast_tokenizer(tokenizer, spec)


class _CheckedTexts:
    """An iterable of texts that records whether any is not blank (`is_blank`)."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts, self.has_text = texts, False

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.has_text = self.has_text or not is_blank(text)
            yield text

    def check(self) -> None:
        """Raises `SpectraError` if all texts are blank."""
        if not self.has_text:
            raise SpectraError("there are no texts to train a tokenizer on: every text is blank.")


def _too_few(spec: TokenizerSpec, needed: int) -> SpectraError:
    return SpectraError(
        f"{spec.vocab_size:,} pieces are too few for a {spec.kind} tokenizer on these texts: special tokens and single "
        f"characters or bytes alone are {needed:,}. Set a larger --vocab-size."
    )


def _train_unigram(texts: Iterable[str], spec: TokenizerSpec) -> Tokenizer:
    tokenizer = KINDS["unigram"].blank(spec.lowercase)
    normalize = tokenizer.normalizer.normalize_str
    counts: Counter[str] = Counter()
    checked = _CheckedTexts(texts)
    for text in checked:
        counts.update(normalize(text))
    checked.check()
    counts.pop(" ", None)
    basic = basic_alphabet(spec.lowercase)
    alphabet = _covering_alphabet(counts, basic)
    needed = len(SPECIAL) + len(BYTES) + len(alphabet) + 1  # + 1: the mark of a space
    if spec.vocab_size < needed:
        raise _too_few(spec, needed)
    rare = {ord(character): " " for character in counts.keys() - alphabet}
    trainer = KINDS["unigram"].trainer(spec.vocab_size - len(BYTES), DEFAULT_MIN_FREQUENCY, basic)
    tokenizer.train_from_iterator((normalize(text).translate(rare) for text in texts), trainer)
    pieces = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    special, learned = pieces[: len(SPECIAL)], pieces[len(SPECIAL) :]
    learned = _drop_least_likely(learned, spec.vocab_size - len(BYTES) - len(SPECIAL))
    vocabulary = [*special, *((piece, _BYTE_SCORE) for piece in BYTES), *learned]
    tokenizer.model = models.Unigram(vocabulary, SPECIAL.index(UNKNOWN), True)
    return tokenizer


def _drop_least_likely(pieces: list[tuple[str, float]], size: int) -> list[tuple[str, float]]:
    """Returns pieces without the least likely ones beyond `size`; single characters stay.

    The trainer may return a few more pieces than it was asked for.
    """
    longer = sorted((piece for piece in pieces if len(piece[0]) > 1), key=lambda piece: piece[1])
    extra = {piece for piece, _ in longer[: max(0, len(pieces) - size)]}
    return [piece for piece in pieces if piece[0] not in extra]


def _covering_alphabet(counts: Counter[str], basic: list[str]) -> set[str]:
    """Returns the basic characters and the most frequent others, up to a share of `COVERAGE`."""
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
    """Checks that a folder can be written: it is absent, empty, or holds a tokenizer and nothing else.

    Raises:
        UsageError: it holds other files, such as a model's.
    """
    path = Path(path)
    check_replaceable(path, "tokenizer.json")
    other_files = sorted(item.name for item in path.iterdir() if item.name not in _FILES) if path.is_dir() else []
    if other_files:
        raise UsageError(
            f"{path} holds more than a tokenizer ({other_files[0]}), which would be lost. Name another folder."
        )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Writes a tokenizer folder atomically; replaces only another tokenizer's folder."""
    check_tokenizer_folder(folder)
    with atomic_folder(folder) as temporary:
        tokenizer.save_pretrained(str(temporary))
