"""The loop over batches: what it returns depends on the texts alone, in whatever order batches take them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spectra_nsa.models.encode import batches, encode_texts, longest_first, shorten, shortest_first

TEXTS = ["ccc", "a", "dddd", "bb", "eee", "f", "ggg"]


def test_batches_go_by_length() -> None:
    assert [batch for _, batch in batches(TEXTS, 3)] == [["dddd", "ccc", "eee"], ["ggg", "bb", "a"], ["f"]]
    assert [batch for _, batch in batches(TEXTS, 4, shortest_first(TEXTS))] == [
        ["a", "f", "bb", "ccc"],
        ["eee", "ggg", "dddd"],
    ]


@pytest.mark.parametrize("order", [None, shortest_first(TEXTS), longest_first(TEXTS)[::-1].copy()])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_outputs_are_in_the_order_of_the_texts(size: int, order: np.ndarray | None) -> None:
    def compute(batch: list[str]) -> dict[str, torch.Tensor]:
        codes = torch.tensor([[ord(text[0]), len(text)] for text in batch])
        return {"codes": codes, "length": codes[:, 1], "unused": codes}

    outputs = encode_texts(TEXTS, compute, ["codes", "length"], batch_size=size, order=order)
    assert outputs["codes"].tolist() == [[ord(text[0]), len(text)] for text in TEXTS]
    assert outputs["length"].tolist() == [len(text) for text in TEXTS] and len(outputs) == 2


def test_no_texts_give_empty_arrays() -> None:
    outputs = encode_texts([], lambda batch: {"embedding": torch.ones(len(batch), 3)}, ["embedding"], batch_size=2)
    assert outputs["embedding"].shape == (0, 3)


def test_only_vectors_with_prefixes_are_shortened() -> None:
    outputs = {name: torch.ones(2, 4) for name in ("embedding", "semantic", "entity", "fast")}
    assert shorten(outputs, None) == outputs
    cut = shorten(outputs, 1)
    assert {name: value.shape[1] for name, value in cut.items()} == {
        "embedding": 1, "semantic": 1, "entity": 4, "fast": 4,
    }  # fmt: skip
    assert torch.equal(cut["embedding"], torch.ones(2, 1))
