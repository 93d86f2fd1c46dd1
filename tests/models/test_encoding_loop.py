"""The loop over batches: what it returns depends on the texts alone, in whatever order batches take them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from spectra_nsa.models.encoding import loop
from spectra_nsa.models.encoding.loop import batches, encode_texts, shortest_first
from spectra_nsa.models.encoding.outputs import shorten

TEXTS = ["ccc", "a", "dddd", "bb", "eee", "f", "ggg"]


def test_batches_go_by_length() -> None:
    assert [batch for _, batch in batches(TEXTS, 3)] == [["dddd", "ccc", "eee"], ["ggg", "bb", "a"], ["f"]]
    assert [batch for _, batch in batches(TEXTS, 4, shortest_first(TEXTS))] == [
        ["a", "f", "bb", "ccc"],
        ["eee", "ggg", "dddd"],
    ]


def tokenize(texts: list[str], side: str = "right") -> dict[str, Any]:
    """Returns a token for each character, padded with zeros."""
    width = max(len(text) for text in texts)
    rows = [[ord(letter) for letter in text] for text in texts]
    pad = [[0] * (width - len(row)) for row in rows]
    padded = [row + p if side == "right" else p + row for row, p in zip(rows, pad, strict=True)]
    ids = torch.tensor(padded).reshape(len(texts), width)
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "prompt_length": 1, "modality": "text"}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("size", [None, 1, 3, 100])
def test_outputs_are_in_the_order_of_the_texts(size: int | None, side: str) -> None:
    seen = []

    def compute(features: dict[str, Any]) -> dict[str, torch.Tensor]:
        ids, mask = features["input_ids"], features["attention_mask"]
        assert features["prompt_length"] == 1 and mask.any(0).all(), "a column of padding alone"
        seen.append(len(ids))
        codes = torch.stack([ids.sum(1), mask.sum(1)], dim=1)
        return {"codes": codes, "length": codes[:, 1], "unused": codes}

    outputs = encode_texts(TEXTS, partial(tokenize, side=side), compute, ["codes", "length"], batch_size=size)
    assert outputs["codes"].tolist() == [[sum(map(ord, text)), len(text)] for text in TEXTS]
    assert outputs["length"].tolist() == [len(text) for text in TEXTS] and len(outputs) == 2
    assert size is None or max(seen) == min(size, len(TEXTS))


def test_batches_hold_so_many_tokens_with_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_BATCH_TOKENS", {"cpu": 40})
    monkeypatch.setattr(loop, "_WINDOW", 50)
    shapes = []

    def compute(features: dict[str, Any]) -> dict[str, torch.Tensor]:
        shapes.append(tuple(features["input_ids"].shape))
        return {"sum": features["input_ids"].sum(1)}

    texts = ["x" * (1 + 7 * number % 19) for number in range(200)] + ["y" * 60]
    sums = encode_texts(texts, tokenize, compute, ["sum"])["sum"]
    assert sums.tolist() == [sum(map(ord, text)) for text in texts]
    assert all(rows * width <= 40 or rows == 1 for rows, width in shapes) and (1, 60) in shapes
    assert sum(rows * width for rows, width in shapes) < 1.2 * sum(map(len, texts))


def test_no_texts_give_empty_arrays() -> None:
    outputs = encode_texts([], lambda texts: {"input_ids": torch.ones(1, 1), "attention_mask": torch.ones(1, 1)},
                           lambda features: {"embedding": torch.ones(1, 3)}, ["embedding"], batch_size=2)  # fmt: skip
    assert outputs["embedding"].shape == (0, 3)


def test_only_vectors_with_prefixes_are_shortened() -> None:
    outputs = {name: torch.ones(2, 4) for name in ("embedding", "semantic", "entity", "fast")}
    assert shorten(outputs, None) == outputs
    cut = shorten(outputs, 1)
    assert {name: value.shape[1] for name, value in cut.items()} == {
        "embedding": 1, "semantic": 1, "entity": 4, "fast": 4,
    }  # fmt: skip
    assert torch.equal(cut["embedding"], torch.ones(2, 1))
