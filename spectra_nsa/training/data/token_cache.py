"""Training texts as token ids, tokenized once and memory-mapped, so that batches only need padding.

A batch is bit for bit that of sentence-transformers' collator for the same texts: each text goes once through the same
`preprocess`, and its ids are cached without padding.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import sentence_transformers
import tokenizers
import torch
import transformers
from datasets import Dataset
from sentence_transformers.base.data_collator import BaseDataCollator

from spectra_nsa.config.terms import SCORE_COLUMN
from spectra_nsa.core import processes
from spectra_nsa.core.cache import Cache, Entry
from spectra_nsa.core.console import progress
from spectra_nsa.text.row_store import ArrowFile
from spectra_nsa.training.data.training_data import TrainingData

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder

RULES = 1  # part of the key: raise it when the format changes
TOKENS = Cache("tokens", keep=8)
_FILE = "tokens.arrow"
_TEXTS_PER_CHUNK = 500  # texts
_PROBE = 64  # rows tokenized both ways to check that the batches are equal


class TokenCollator(BaseDataCollator):
    """Pads rows of token ids to the batch that `stock` builds from their texts.

    Args:
        stock: the trainer's collator, with its prompts and maximum length.
        tokenizer: decides the side and ids of the padding.
        columns: the columns of the training rows that hold texts.
    """

    def __init__(self, stock: BaseDataCollator, tokenizer: Any, columns: Sequence[str]) -> None:
        super().__init__(stock.preprocess_fn, prompts=stock.prompts, max_length=stock.max_length)
        self.side = tokenizer.padding_side
        self.pads = {
            "input_ids": tokenizer.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
        }
        self.patterns = {column: preprocess_column(stock, column, ["a"]) for column in columns}

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        if SCORE_COLUMN in features[0]:
            batch["label"] = torch.tensor([row[SCORE_COLUMN] for row in features])
        for column, pattern in self.patterns.items():
            ids = [torch.tensor(row[column], dtype=torch.int64) for row in features]
            for name, value in pattern.items():
                if name in self.pads:
                    rows = (
                        ids if name == "input_ids" else [torch.full_like(row, name == "attention_mask") for row in ids]
                    )
                    value = torch.nn.utils.rnn.pad_sequence(rows, True, self.pads[name], self.side)
                batch[f"{column}_{name}"] = value
        return batch


def preprocess_column(stock: BaseDataCollator, column: str, texts: list[str]) -> Mapping[str, Any]:
    """Returns the stock collator's tensors for texts of a column, without the column's name in their keys."""
    assert isinstance(stock.prompts, dict)
    routes: Mapping[str, Any] = stock.router_mapping or {}
    options = {} if stock.max_length is None else {"max_length": stock.max_length}
    tensors: Mapping[str, Any] = stock.preprocess_fn(
        texts, prompt=stock.prompts.get(column), task=routes.get(column), **options
    )
    return tensors


def token_rows(
    data: TrainingData, model: SpectraSentenceTransformer | SpectraSparseEncoder, stock: BaseDataCollator
) -> tuple[Dataset, TokenCollator] | None:
    """Returns the training rows as token ids, and the collator for them.

    Args:
        data: the rows. The ids of rows on disk are cached, by a key of everything that decides them.
        model: the model whose tokenizer is used.
        stock: see `TokenCollator`.

    Returns:
        ``None`` if padding cannot reproduce the tokenizer's batches; then texts must be tokenized batch by batch.

    Raises:
        SpectraError: the disk is full.
    """
    columns = data.columns
    collator = TokenCollator(stock, model.tokenizer, columns)
    kind = np.uint16 if len(model.tokenizer) <= 1 << 16 else np.int32
    first = data.train.select(range(min(_PROBE, len(data.train))))
    probe = Dataset(pa.Table.from_batches(_batches(first, stock, kind)))
    if not _same_batch(collator([*probe]), stock(first.to_list())):
        return None
    if data.stored is None:
        return Dataset(pa.Table.from_batches(_batches(data.train, stock, kind))), collator
    entry = TOKENS.entry(**_facts(data.stored.digest, columns, model, stock))
    with processes.first_before_others():
        rows = read_tokens(entry) or _write(entry, data.stored.rows, stock, kind)
    rows = rows if data.stored.positions is None else rows.select(data.stored.positions)
    return rows, collator


def _batches(rows: Dataset, stock: BaseDataCollator, kind: type) -> Iterator[pa.RecordBatch]:
    for start in progress(range(0, len(rows), _TEXTS_PER_CHUNK), label="tokenizing"):
        part = rows[start : start + _TEXTS_PER_CHUNK]
        yield pa.record_batch(
            {
                column: pa.array(values)
                if column == SCORE_COLUMN
                else _ids(preprocess_column(stock, column, values), kind)
                for column, values in part.items()
            }
        )


def _ids(batch: Mapping[str, Any], kind: type) -> pa.ListArray:
    """Returns the ids without padding, on whichever side it is."""
    mask = batch["attention_mask"].bool()
    offsets = np.concatenate([[0], np.cumsum(mask.sum(1).numpy())]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(batch["input_ids"][mask].numpy().astype(kind)))


def _same_batch(ours: Mapping[str, Any], stock: Mapping[str, Any]) -> bool:
    return list(ours) == list(stock) and all(
        torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value
        for key, value in stock.items()
    )


def _facts(
    digest: str,
    columns: Sequence[str],
    model: SpectraSentenceTransformer | SpectraSparseEncoder,
    stock: BaseDataCollator,
) -> dict[str, Any]:
    """Returns everything that decides the ids: rows, tokenizer, lengths, prompts, versions."""
    tokenizer = model.tokenizer
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    for setting in ("truncation", "padding"):  # left over from the last call
        parts.pop(setting)
    return {
        "rules": RULES,
        "rows": digest,
        "columns": list(columns),
        "tokenizer": parts,
        "truncation": [tokenizer.truncation_side, tokenizer.model_max_length, model.max_seq_length, stock.max_length],
        "prompts": stock.prompts,
        **({"routes": stock.router_mapping} if stock.router_mapping else {}),
        "versions": [tokenizers.__version__, transformers.__version__, sentence_transformers.__version__],
    }


def _write(entry: Entry, rows: Dataset, stock: BaseDataCollator, kind: type) -> Dataset:
    return write_tokens(entry, _batches(rows, stock, kind))


def read_tokens(entry: Entry) -> Dataset | None:
    """Returns the memory-mapped ids of an earlier run; ``None`` if there are none, or they are damaged."""
    facts = entry.read()
    if facts is None:
        return None
    try:
        rows = Dataset.from_file(str(entry.folder / _FILE))
    except (OSError, ValueError, LookupError, RuntimeError):  # pyarrow's errors are among them
        return None
    return rows if len(rows) == facts["rows"] else None


def write_tokens(entry: Entry, batches: Iterator[pa.RecordBatch]) -> Dataset:
    """Writes batches, at least one, to the cache and returns them memory-mapped.

    Raises:
        SpectraError: the disk is full.
    """
    with entry.draft() as draft:
        first = next(batches)
        rows = 0
        file = ArrowFile(draft / _FILE, first.schema)
        for batch in itertools.chain([first], batches):
            rows += batch.num_rows
            file.write(batch)
        file.close()
        entry.commit(draft, {"rows": rows})
    return Dataset.from_file(str(entry.folder / _FILE))
