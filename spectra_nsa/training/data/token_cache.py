"""Training texts as token ids, made once and mapped from the disk; batches of them are only padded.

A batch is bit for bit what sentence-transformers' collator makes of the same texts: each text goes once through the
same `preprocess`, and its ids are kept without their padding.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import sentence_transformers
import tokenizers
import torch
import transformers
from datasets import Dataset
from sentence_transformers.base.data_collator import BaseDataCollator

from spectra_nsa.core import processes
from spectra_nsa.core.cache import cache_folder, new_folder, prune, publish
from spectra_nsa.core.checksums import describe
from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import read_json, write_json
from spectra_nsa.text.store import ArrowFile
from spectra_nsa.training.data.rows import SCORE, TrainingData

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

RULES = 1  # part of the key: raise it when what is written changes
KEPT = 8  # sets of token ids that stay on disk
_FILE, _FACTS = "tokens.arrow", "entry.json"
_AT_A_TIME = 500  # texts
_PROBE = 64  # rows that are tokenised both ways before anything is trusted


class TokenCollator(BaseDataCollator):
    """Pads rows of token ids into the batch that `stock` makes of their texts.

    Args:
        stock: the trainer's own, with its prompts and its length.
        tokenizer: says how to pad.
        columns: of the training rows, those that hold texts.
    """

    def __init__(self, stock: BaseDataCollator, tokenizer: Any, columns: Sequence[str]) -> None:
        super().__init__(stock.preprocess_fn, prompts=stock.prompts, max_length=stock.max_length)
        self.side = tokenizer.padding_side
        self.pads = {
            "input_ids": tokenizer.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
        }
        self.patterns = {column: preprocessed(stock, column, ["a"]) for column in columns}

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        if SCORE in features[0]:
            batch["label"] = torch.tensor([row[SCORE] for row in features])
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


def preprocessed(stock: BaseDataCollator, column: str, texts: list[str]) -> Mapping[str, Any]:
    """What the stock collator makes of some texts of a column, without the column's name."""
    assert isinstance(stock.prompts, dict)
    options = {} if stock.max_length is None else {"max_length": stock.max_length}
    found: Mapping[str, Any] = stock.preprocess_fn(texts, prompt=stock.prompts.get(column), task=None, **options)
    return found


def token_rows(
    data: TrainingData, model: SpectraSentenceTransformer, stock: BaseDataCollator
) -> tuple[Dataset, TokenCollator] | None:
    """The training rows as token ids, and what makes batches of them.

    Args:
        data: the rows. Those on the disk leave their ids on the disk, under a key of all that decides them.
        model: its tokenizer.
        stock: see `TokenCollator`.

    Returns:
        ``None`` where the tokenizer does more than we can repeat: then texts are tokenised by the batch.

    Raises:
        SpectraError: there is no room for the ids.
    """
    columns = data.columns
    collator = TokenCollator(stock, model.tokenizer, columns)
    kind = np.uint16 if len(model.tokenizer) <= 1 << 16 else np.int32
    first = data.train.select(range(min(_PROBE, len(data.train))))
    probe = Dataset(pa.Table.from_batches(_batches(first, stock, kind)))
    if not _alike(collator([*probe]), stock(first.to_list())):
        return None
    if data.stored is None:
        return Dataset(pa.Table.from_batches(_batches(data.train, stock, kind))), collator
    place = cache_folder("tokens") / _key(data.stored.digest, columns, model, stock)
    with processes.first_before_others():
        rows = mapped(place) or _written(place, data.stored.rows, stock, kind)
    rows = rows if data.stored.places is None else rows.select(data.stored.places)
    return rows, collator


def _batches(rows: Dataset, stock: BaseDataCollator, kind: type) -> Iterator[pa.RecordBatch]:
    for start in progress(range(0, len(rows), _AT_A_TIME), label="tokenising"):
        part = rows[start : start + _AT_A_TIME]
        yield pa.record_batch(
            {
                column: pa.array(values) if column == SCORE else _ids(preprocessed(stock, column, values), kind)
                for column, values in part.items()
            }
        )


def _ids(batch: Mapping[str, Any], kind: type) -> pa.ListArray:
    """The ids without their padding, whichever side it is on."""
    mask = batch["attention_mask"].bool()
    offsets = np.concatenate([[0], np.cumsum(mask.sum(1).numpy())]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(batch["input_ids"][mask].numpy().astype(kind)))


def _alike(ours: Mapping[str, Any], stock: Mapping[str, Any]) -> bool:
    return list(ours) == list(stock) and all(
        torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value
        for key, value in stock.items()
    )


def _key(digest: str, columns: Sequence[str], model: SpectraSentenceTransformer, stock: BaseDataCollator) -> str:
    """A name for the ids by all that decides them: rows, tokenizer, lengths, prompts, versions."""
    tokenizer = model.tokenizer
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    for passing in ("truncation", "padding"):  # those of the last call
        parts.pop(passing)
    sides = (tokenizer.truncation_side, tokenizer.model_max_length, model.max_seq_length)
    versions = (tokenizers.__version__, transformers.__version__, sentence_transformers.__version__)
    facts = [RULES, digest, list(columns), parts, sides, stock.max_length, stock.prompts, versions]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def mapped(place: Path) -> Dataset | None:
    """The ids of an earlier run; ``None`` where there are none, or not all."""
    try:
        entry = read_json(place / _FACTS)
        if (place / _FILE).stat().st_size != entry["size"]:
            return None
        rows = Dataset.from_file(str(place / _FILE))
        os.utime(place)
        return rows if len(rows) == entry["rows"] else None
    except (SpectraError, OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are ValueErrors
        return None


def _written(place: Path, rows: Dataset, stock: BaseDataCollator, kind: type) -> Dataset:
    return written(place, _batches(rows, stock, kind))


def written(place: Path, batches: Iterator[pa.RecordBatch]) -> Dataset:
    """Keeps batches, of which there is at least one, for later runs.

    Raises:
        SpectraError: there is no room for them.
    """
    temporary = new_folder(place)
    try:
        first = next(batches)
        rows = first.num_rows
        file = ArrowFile(temporary / _FILE, first.schema)
        for batch in itertools.chain([first], batches):
            rows += batch.num_rows if batch is not first else 0
            file.write(batch)
        file.close()
        write_json(temporary / _FACTS, {"rows": rows} | describe(temporary / _FILE, sync=True))
        publish(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    prune(place.parent, KEPT)
    return Dataset.from_file(str(place / _FILE))
