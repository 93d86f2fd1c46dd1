"""The query side of an inference-free model: a tokenizer and one weight per token, without torch or transformers.

tokenizer.json       the tokenizer, as the library `tokenizers` writes it
query_weights.npy    (V,) float32
query_side.json      special ids, prompt, length limit, and a checksum of the vocabulary that the weights belong to
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError, opening
from spectra_nsa.core.files import atomic_folder, check_replaceable, expand_user, read_json_object, write_json
from spectra_nsa.core.inputs import text_list
from spectra_nsa.tokens.limits import check_vocabulary

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from tokenizers import Tokenizer

SETTINGS, TOKENIZER, WEIGHTS = "query_side.json", "tokenizer.json", "query_weights.npy"
FALLBACK_WEIGHT = 0.1  # of the token that stands for a text whose vector would be empty
_BATCH = 1_024
_REMEDY = "Tokenizer and weights belong to different models; restore both from the same model."


@dataclass(frozen=True, kw_only=True)
class QueryWeights:
    """Encodes queries as the static weights of their tokens, bit for bit as the model does.

    Attributes:
        tokenizer: truncates texts, and adds no special tokens.
        weights_V: one weight per token, (V,) float32.
        special_ids: the ids of special tokens, which do not stand for an empty query.
        prompt: what is put before each query; ``""`` for nothing.
        max_active_dims: the most terms of a query, the strongest ones; ``None`` for all.
    """

    tokenizer: Tokenizer
    weights_V: NDArray[np.float32]
    special_ids: frozenset[int]
    prompt: str = ""
    max_active_dims: int | None = None

    @classmethod
    def load(cls, folder: str | Path) -> QueryWeights:
        """Opens a folder that `save` wrote.

        Raises:
            SpectraError: a file is missing or damaged, or tokenizer and weights do not fit.
        """
        from tokenizers import Tokenizer

        path = expand_user(folder)
        if not (path / SETTINGS).is_file():
            raise SpectraError(
                f"{path} is not the query side of a sparse encoder: it has no {SETTINGS}. Write one with "
                'model.save_side("query", FOLDER).'
            )
        settings = read_json_object(path / SETTINGS)
        with opening(path):
            weights_V = np.load(path / WEIGHTS, allow_pickle=False)
            tokenizer = Tokenizer.from_file(str(path / TOKENIZER))
            if weights_V.ndim != 1 or weights_V.dtype != np.float32:
                raise ValueError(f"{WEIGHTS} is not a row of float32 numbers")
            limit, prompt = settings["max_active_dims"], settings["prompt"]
            if not isinstance(prompt, str) or (limit is not None and (type(limit) is not int or limit < 1)):
                raise ValueError(f"{SETTINGS} has the prompt {prompt!r} and max_active_dims {limit!r}")
            side = cls(
                tokenizer=tokenizer,
                weights_V=weights_V,
                special_ids=frozenset(int(number) for number in settings["special_ids"]),
                prompt=prompt,
                max_active_dims=limit,
            )
            prompt.encode()  # a lone surrogate would fail at the first query
            _set_length(tokenizer, settings["max_length"])
            checksum = settings["vocabulary_sha256"]
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        check_static_weights(weights_V, vocabulary, side.special_ids, path)
        declared = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        if not declared <= side.special_ids or vocabulary_sha256(vocabulary) != checksum:
            raise SpectraError(f"{path}: {TOKENIZER} is not the tokenizer that {WEIGHTS} was made for. {_REMEDY}")
        return side

    def save(self, folder: str | Path) -> None:
        """Writes the folder, complete or not at all.

        Raises:
            UsageError: the folder holds something else.
        """
        path = expand_user(folder)
        check_replaceable(path, SETTINGS)
        truncation = self.tokenizer.truncation
        settings = {
            "schema": 1,
            "special_ids": sorted(self.special_ids),
            "prompt": self.prompt,
            "max_active_dims": self.max_active_dims,
            "max_length": truncation["max_length"] if truncation else None,
            "vocabulary_sha256": vocabulary_sha256(self.tokenizer.get_vocab(with_added_tokens=True)),
        }
        with atomic_folder(path) as draft:
            self.tokenizer.save(str(draft / TOKENIZER))
            np.save(draft / WEIGHTS, self.weights_V, allow_pickle=False)
            write_json(draft / SETTINGS, settings)

    def encode(self, texts: Sequence[str]) -> csr_matrix:
        """Encodes queries.

        Args:
            texts: the queries.

        Returns:
            (N, V) float32, the indices of each row in order. A query without any weighted token keeps its strongest
            own token, with a small weight; a row stays empty only if its text has no tokens.

        Raises:
            UsageError: an item is no text.
        """
        from scipy.sparse import csr_matrix

        rows = self.rows(texts)
        ends = np.cumsum([0, *(len(ids) for ids, _ in rows)])
        indices = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in rows)], dtype=np.int32, casting="unsafe")
        data = np.concatenate([np.zeros(0, np.float32), *(weights for _, weights in rows)])
        return csr_matrix((data, indices, ends), shape=(len(rows), len(self.weights_V)))

    def rows(self, texts: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Returns the ids and weights of each query's terms, in the order of ids; see `encode`. Needs no scipy."""
        return [self._row(ids) for ids in self._token_ids(text_list(texts))]

    def terms(self) -> list[str]:
        """Returns the V terms by id; ``""`` for ids without one."""
        names = {number: token for token, number in self.tokenizer.get_vocab(with_added_tokens=True).items()}
        return [names.get(number, "") for number in range(len(self.weights_V))]

    def _token_ids(self, texts: list[str]) -> Iterator[NDArray[np.int64]]:
        """Yields the distinct ids of each text, in order."""
        for start in range(0, len(texts), _BATCH):
            batch = [self.prompt + text for text in texts[start : start + _BATCH]]
            for encoding in self.tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                yield np.unique(np.array(encoding.ids, dtype=np.int64))

    def _row(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        weights = self.weights_V[ids]
        kept = np.flatnonzero(weights)
        if not len(kept) and len(own := np.flatnonzero(~np.isin(ids, list(self.special_ids)))):
            strongest = own[len(own) - 1 - int(weights[own][::-1].argmax())]  # the last of equals: the rarer one
            return ids[[strongest]], np.full(1, FALLBACK_WEIGHT, dtype=np.float32)
        if self.max_active_dims is not None and len(kept) > self.max_active_dims:
            kept = np.sort(kept[np.argsort(-np.abs(weights[kept]), kind="stable")[: self.max_active_dims]])
        return ids[kept], weights[kept]


def static_tokenizer(tokenizer: Any, name: str) -> Tokenizer:
    """Returns a copy of a transformers tokenizer as `QueryWeights` needs it.

    Raises:
        SpectraError: it is not a fast tokenizer.
    """
    from tokenizers import Tokenizer

    if not getattr(tokenizer, "is_fast", False):
        raise SpectraError(f"{name} has no fast tokenizer, which queries without transformers need.")
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    limit = tokenizer.model_max_length
    _set_length(copy, limit if limit is not None and limit < 10**9 else None)
    return copy


def check_static_weights(
    weights_V: Any, vocabulary: Mapping[str, int], special_ids: Iterable[int], name: str | Path
) -> None:
    """Checks that a tokenizer fits static weights: no id beyond them, no special id beyond, every weight finite.

    Args:
        weights_V: one weight per token.
        vocabulary: the tokenizer's ids by token.
        special_ids: the ids of special tokens.
        name: the model, for the message.

    Raises:
        SpectraError: they do not fit.
    """
    check_vocabulary({*vocabulary.values(), *special_ids}, len(weights_V), name)
    unknown = sorted(set(special_ids) - set(vocabulary.values()))
    if unknown:
        raise SpectraError(f"{name}: the tokenizer has no special token {unknown[0]}. {_REMEDY}")
    if not np.isfinite(np.asarray(weights_V)).all():
        raise SpectraError(f"{name}: the weights of queries have NaN or infinity. Save or download the model again.")


def check_same_vocabulary(queries: Mapping[str, int], documents: Mapping[str, int], name: str | Path) -> None:
    """Checks that queries and documents mean the same term by each id.

    Args:
        queries: the ids of the queries' tokenizer by token.
        documents: those of the documents' tokenizer.
        name: the model, for the message.

    Raises:
        SpectraError: they differ, so that scores would mean nothing.
    """
    if queries == documents:
        return
    token = min({**queries, **documents}, key=lambda each: (queries.get(each) == documents.get(each), each))
    ids = [str(table.get(token, "none")) for table in (queries, documents)]
    raise SpectraError(
        f"{name}: the tokenizers of queries and documents differ: {token!r} has the id {ids[0]} for queries and "
        f"{ids[1]} for documents. Restore the tokenizer of both routes from the same model."
    )


def vocabulary_sha256(vocabulary: Mapping[str, int]) -> str:
    """Returns the SHA-256 of a vocabulary: the tokens and their ids."""
    lines = sorted(f"{number}\t{token}\n" for token, number in vocabulary.items())
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def _set_length(tokenizer: Tokenizer, length: int | None) -> None:
    if length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(length)
