"""The texts of a pretraining run as token ids, cut to documents that the model can take.

Every text of every row is a document of its own. One that is too long is cut, at the beginning of a word where there
is one, into several; nothing is thrown away.
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
from spectra_nsa.text.sources import load_source
from spectra_nsa.training.data.token_cache import read_tokens, write_tokens

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe

RULES = 1  # part of the key: raise it when what is written changes
TOKENS = Cache("pretraining", keep=8)
_TEXTS_PER_CHUNK = 500  # texts


@dataclass(frozen=True, kw_only=True)
class PretrainingTexts:
    """What a pretraining run reads.

    Attributes:
        train: the texts that are learned from.
        dev: held-out texts; empty for no dev metric.
        quarantined: broken rows set aside.
        left_out: texts that are not learned from since a held-out one is the same.
        digest: SHA-256 of the training texts.
    """

    train: list[str]
    dev: list[str]
    quarantined: int
    left_out: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Token ids of documents without the tokenizer's special ones, one behind another.

    Attributes:
        ids: of all documents.
        begins: whether a token begins a word; as long as `ids`.
        ends: where each document ends.
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
        """Tokens of each document."""
        return np.diff(self.ends, prepend=0)


def load_texts(recipe: Recipe, *, quarantine: Path | None) -> PretrainingTexts:
    """The texts of `data.train` and `pretrain.extra_sources`, and those held out.

    Rows are held out whole, and no held-out text stays among the others.

    Args:
        recipe: `data`, `pretrain` and `train.seed` are read.
        quarantine: the folder for broken rows; ``None`` counts them only.

    Raises:
        UsageError: no source is given.
        SpectraError: a source cannot be read, or leaves nothing to train on.
    """
    section = recipe.data
    rows, quarantined = _rows(section.source, section.columns, section.split, section.limit, quarantine)
    for source in recipe.pretrain.extra_sources if recipe.pretrain is not None else []:
        more, refused = _rows(source, None, None, section.limit, quarantine)
        rows, quarantined = rows + more, quarantined + refused
    held: list[tuple[str, ...]] = []
    if section.dev_rows and section.dev is not None:
        held, refused = _rows(section.dev, None, None, section.dev_rows, quarantine)
        quarantined += refused
    elif section.dev_rows and len(rows) >= 4:
        order = np.random.default_rng(recipe.train.seed).permutation(len(rows))
        size = min(section.dev_rows, len(rows) // 4)
        held, rows = [rows[place] for place in order[:size]], [rows[place] for place in np.sort(order[size:])]
    dev = list(dict.fromkeys(text for row in held for text in row))
    unseen = set(dev)
    train = [text for row in rows for text in row if text not in unseen]
    if not train:
        raise SpectraError(f"{section.train} leaves no text to train on once {len(dev)} are held out: give it more.")
    left_out = sum(len(row) for row in rows) - len(train)
    return PretrainingTexts(
        train=train, dev=dev, quarantined=quarantined, left_out=left_out, digest=texts_sha256(train)
    )


def _rows(
    source: str, columns: dict[str, str] | None, split: str | None, limit: int | None, quarantine: Path | None
) -> tuple[list[tuple[str, ...]], int]:
    found = load_source(source, columns=columns, split=split, limit=limit, quarantine=quarantine)
    texts = [found.dataset[name][:] for name in found.text_columns]
    return list(zip(*texts, strict=True)), found.quarantined


def special_ids_around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special ids before and after a single text, such as those of [CLS] and [SEP].

    Raises:
        SpectraError: the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise SpectraError(
            "the tokenizer has no mask token, and masked-LM pretraining needs one. Choose another with "
            "model.tokenizer, such as google-bert/bert-base-uncased."
        )
    encoding = _plain(tokenizer).encode("a")
    own = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    assert own, "a letter is a token"
    return encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]


def tokenize_documents(texts: Sequence[str], tokenizer: Any, longest: int, digest: str | None = None) -> Documents:
    """Tokenises texts once, and cuts what is longer than `longest` ids.

    Args:
        texts: at least one.
        tokenizer: a fast one.
        longest: tokens of a document, the special ones not counted.
        digest: the texts' SHA-256: the ids are kept on disk under it; ``None`` keeps none.

    Raises:
        SpectraError: no text has a token, or there is no room for the ids.
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
    """A copy that neither cuts nor pads."""
    plain = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain


def _batches(texts: Sequence[str], plain: tokenizers.Tokenizer) -> Iterator[pa.RecordBatch]:
    for start in progress(range(0, len(texts), _TEXTS_PER_CHUNK), label="tokenising"):
        part = list(texts[start : start + _TEXTS_PER_CHUNK])
        found = plain.encode_batch(part, add_special_tokens=False)
        ids = pa.array([encoding.ids for encoding in found], pa.list_(pa.int32()))
        begins = [word_starts(encoding, text, plain) for encoding, text in zip(found, part, strict=True)]
        yield pa.record_batch({"ids": ids, "begins": pa.array(begins, pa.list_(pa.bool_()))})


def word_starts(encoding: tokenizers.Encoding, text: str, plain: tokenizers.Tokenizer) -> list[bool]:
    """Which tokens begin a word: what the pre-tokeniser cut apart, or, where there is none, what a blank does."""
    if plain.pre_tokenizer is not None:
        words: list[int | None] = encoding.word_ids
        return [place == 0 or word is None or word != words[place - 1] for place, word in enumerate(words)]
    return [
        place == 0 or text[start : start + 1].isspace() or text[max(0, start - 1) : start].isspace()
        for place, (start, _) in enumerate(encoding.offsets)
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
        raise SpectraError("none of the texts has a token to learn from.")
    return Documents(ids=np.concatenate(ids), begins=np.concatenate(begins), ends=np.cumsum(lengths))


def cut_lengths(begins: NDArray[np.bool_], longest: int) -> list[int]:
    """The lengths of the parts of a text, each at most `longest`; a word is cut only where it is longer than that."""
    lengths, start = [], 0
    while len(begins) - start > longest:
        starts = np.flatnonzero(begins[start + 1 : start + longest + 1])
        lengths.append(int(starts[-1]) + 1 if len(starts) else longest)
        start += lengths[-1]
    return lengths + ([len(begins) - start] if len(begins) > start else [])
