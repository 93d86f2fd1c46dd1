"""The texts of a pretraining run as token ids, split into documents that fit the model.

Each text of each row is a document. A text that is too long is split into several, if possible at the start of a word;
no token is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import tokenizers
from numpy.typing import NDArray

from spectra_nsa.core import processes
from spectra_nsa.core.cache import Cache
from spectra_nsa.core.checksums import texts_sha256
from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.strings import comparable
from spectra_nsa.text.rows import TextSet
from spectra_nsa.text.shared_columns import SharedColumns
from spectra_nsa.text.sources import load_source
from spectra_nsa.training.data.token_cache import read_tokens, write_tokens

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe

RULES = 1  # part of the key: raise it when the format changes
TOKENS = Cache("pretraining", keep=8)
_TEXTS_PER_CHUNK = 500  # texts


@dataclass(frozen=True, kw_only=True)
class PretrainingTexts:
    """The texts of a pretraining run.

    Attributes:
        train: the training texts.
        dev: held-out texts; empty for no dev metric.
        quarantined: number of rows that were quarantined.
        left_out: number of texts dropped because they equal a held-out text.
        digest: SHA-256 of the training texts.
    """

    train: list[str]
    dev: list[str]
    quarantined: int
    left_out: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Token ids of documents without special tokens, concatenated.

    Attributes:
        ids: the ids of all documents.
        begins: whether each token begins a word; as long as `ids`.
        ends: the end of each document in `ids`.
    """

    ids: NDArray[np.int32]
    begins: NDArray[np.bool_]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        start = int(self.ends[index - 1]) if index else 0
        end = int(self.ends[index])
        return self.ids[start:end], self.begins[start:end]

    def lengths(self) -> NDArray[np.int64]:
        """Returns the number of tokens of each document."""
        return np.diff(self.ends, prepend=0)


def load_texts(recipe: Recipe, *, quarantine: Path | None) -> PretrainingTexts:
    """Loads the texts of `data.train` and `pretrain.extra_sources`, and the held-out texts.

    All texts of a held-out row are held out, and no training text equals a held-out text (see `comparable`).

    Args:
        recipe: `data`, `pretrain` and `train.seed` are used.
        quarantine: the folder for quarantined rows; ``None`` counts them only.

    Raises:
        UsageError: no source is given.
        SpectraError: a source cannot be read, or leaves nothing to train on.
    """
    section = recipe.data
    columns = SharedColumns(section.columns)
    loaded = load_source(
        section.source, columns=section.columns, split=section.split, limit=section.limit, quarantine=quarantine
    )
    rows, quarantined = _rows(loaded)
    for source in recipe.pretrain.extra_sources if recipe.pretrain is not None else []:
        more, refused = _rows(columns.load(source, limit=section.limit, quarantine=quarantine))
        rows, quarantined = rows + more, quarantined + refused
    held_out: list[tuple[str, ...]] = []
    if section.dev_rows and section.dev is not None:
        held_out, refused = _rows(columns.load(section.dev, limit=section.dev_rows, quarantine=quarantine))
        quarantined += refused
    elif section.dev_rows and len(rows) >= 4:
        order = np.random.default_rng(recipe.train.seed).permutation(len(rows))
        size = min(section.dev_rows, len(rows) // 4)
        held_out, rows = [rows[row] for row in order[:size]], [rows[row] for row in np.sort(order[size:])]
    dev = list(dict.fromkeys(text for row in held_out for text in row))
    unseen = set(map(comparable, dev))
    train = [text for row in rows for text in row if comparable(text) not in unseen]
    if not train:
        raise SpectraError(
            f"{section.train} has no text left to train on: {len(dev)} are held out. Add texts or lower data.dev_rows."
        )
    left_out = sum(len(row) for row in rows) - len(train)
    return PretrainingTexts(
        train=train, dev=dev, quarantined=quarantined, left_out=left_out, digest=texts_sha256(train)
    )


def _rows(loaded: TextSet) -> tuple[list[tuple[str, ...]], int]:
    """Returns the texts of each row, and the number of quarantined rows."""
    texts = [loaded.dataset[name][:] for name in loaded.text_columns]
    return list(zip(*texts, strict=True)), loaded.quarantined


def special_ids_around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Returns the special ids before and after a single text, such as those of [CLS] and [SEP].

    Raises:
        SpectraError: the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise SpectraError(
            "the tokenizer has no mask token, and masked-LM pretraining needs one. Choose another with "
            "model.tokenizer, such as google-bert/bert-base-uncased."
        )
    encoding = _plain(tokenizer).encode("a")
    real = [position for position, special in enumerate(encoding.special_tokens_mask) if not special]
    assert real, "a letter is a token"
    return encoding.ids[: real[0]], encoding.ids[real[-1] + 1 :]


def tokenize_documents(texts: Sequence[str], tokenizer: Any, longest: int, digest: str | None = None) -> Documents:
    """Tokenizes texts once, and splits those with more than `longest` ids.

    Args:
        texts: at least one.
        tokenizer: a fast tokenizer.
        longest: the most tokens of a document, without special tokens.
        digest: the SHA-256 of the texts, by which their ids are cached; ``None`` for no cache.

    Raises:
        SpectraError: no text has a token, or the disk is full.
    """
    plain = _plain(tokenizer)
    if digest is None:
        batches: Any = _batches(texts, plain)
    else:
        entry = TOKENS.entry(rules=RULES, texts=digest, tokenizer=plain.to_str(), version=tokenizers.__version__)
        with processes.first_before_others():
            rows = read_tokens(entry) or write_tokens(entry, _batches(texts, plain))
        batches = rows.with_format("arrow").iter(10_000)
    return _cut(batches, longest)


def _plain(tokenizer: Any) -> tokenizers.Tokenizer:
    """Returns a copy that neither truncates nor pads."""
    plain = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain


def _batches(texts: Sequence[str], plain: tokenizers.Tokenizer) -> Iterator[pa.RecordBatch]:
    for start in progress(range(0, len(texts), _TEXTS_PER_CHUNK), label="tokenizing"):
        part = list(texts[start : start + _TEXTS_PER_CHUNK])
        encodings = plain.encode_batch(part, add_special_tokens=False)
        ids = pa.array([encoding.ids for encoding in encodings], pa.list_(pa.int32()))
        begins = [word_starts(encoding, text, plain) for encoding, text in zip(encodings, part, strict=True)]
        yield pa.record_batch({"ids": ids, "begins": pa.array(begins, pa.list_(pa.bool_()))})


def word_starts(encoding: tokenizers.Encoding, text: str, plain: tokenizers.Tokenizer) -> list[bool]:
    """Returns for each token whether it begins a word, by the pre-tokenizer if there is one, else by white space."""
    if plain.pre_tokenizer is not None:
        words: list[int | None] = encoding.word_ids
        return [index == 0 or word is None or word != words[index - 1] for index, word in enumerate(words)]
    return [
        index == 0 or text[start : start + 1].isspace() or text[max(0, start - 1) : start].isspace()
        for index, (start, _) in enumerate(encoding.offsets)
    ]


def _cut(batches: Iterator[Any], longest: int) -> Documents:
    ids: list[NDArray[np.int32]] = []
    begins: list[NDArray[np.bool_]] = []
    lengths: list[int] = []
    for batch in batches:
        for row_ids, row_begins in zip(batch.column("ids"), batch.column("begins"), strict=True):
            ids.append(row_ids.values.to_numpy())
            begins.append(row_begins.values.to_numpy(zero_copy_only=False))
            lengths += cut_lengths(begins[-1], longest)
    if not lengths:
        raise SpectraError("none of the texts has a token to learn from. Check data.train and the tokenizer.")
    return Documents(ids=np.concatenate(ids), begins=np.concatenate(begins), ends=np.cumsum(lengths))


def cut_lengths(begins: NDArray[np.bool_], longest: int) -> list[int]:
    """Returns the lengths of the parts of a text, each at most `longest`; only a longer word is split."""
    lengths, start = [], 0
    while len(begins) - start > longest:
        starts = np.flatnonzero(begins[start + 1 : start + longest + 1])
        lengths.append(int(starts[-1]) + 1 if len(starts) else longest)
        start += lengths[-1]
    return lengths + ([len(begins) - start] if len(begins) > start else [])
