"""Packing: each document has the logits that it has alone, and masks are whole words that seed and epoch decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.model import SpectraForMaskedLM
from spectra_nsa.tokens.length_batches import Work
from spectra_nsa.training.data.documents import Documents
from spectra_nsa.training.data.packing import IGNORED, Masking, PackedSequences, group_documents, pack_documents
from spectra_nsa.training.loop.masked_lm_trainer import Perplexity, ShuffledOrder, masked_logits

VOCABULARY, MASK = 50, 4
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64, "max_position_embeddings": 64}  # fmt: skip


def documents(count: int = 40, seed: int = 0) -> Documents:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 15, size=count)
    ids = generator.integers(5, VOCABULARY, size=lengths.sum()).astype(np.int32)
    begins = generator.random(len(ids)) < 0.6
    return Documents(ids=ids, begins=begins, ends=np.cumsum(lengths))


def sequences(rate: float = 0.3, count: int = 40, seed: int = 0) -> PackedSequences:
    masking = Masking(rate=rate, mask=MASK, plain=np.arange(5, VOCABULARY, dtype=np.int32))
    return PackedSequences(documents(count), ([2], [3]), 24, masking, seed)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=300), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_packing_loses_nothing_and_overfills_nothing(lengths: list[int], seed: int) -> None:
    packed = pack_documents(lengths, 20, seed)
    assert sorted(index for row in packed for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 20 for row in packed)
    assert packed == pack_documents(lengths, 20, seed)


def test_packed_sequences_are_nearly_full() -> None:
    lengths = np.random.default_rng(1).integers(3, 60, size=2000).tolist()
    packed = pack_documents(lengths, 128, 0)
    assert sum(lengths) / (128 * len(packed)) > 0.97


@pytest.mark.parametrize("position", ["absolute", "rope"])
@pytest.mark.parametrize("mixer", [None, "spectral", "conv"])
@pytest.mark.parametrize("ffn", ["gelu", "geglu"])
def test_packed_logits_are_those_of_each_document_alone(position: str, mixer: str | None, ffn: str) -> None:
    """No token attends to another document, and positions begin anew: for every kind of encoder."""
    torch.manual_seed(0)
    parts: dict[str, Any] = {"attention": "spectral", "mixer": mixer, "depth_mix": True} if mixer else {}
    model = SpectraForMaskedLM(SpectraConfig(**SHAPE, position=position, ffn=ffn, **parts)).eval()
    for gate in model.model.gates():
        torch.nn.init.normal_(gate)
    packed = sequences()
    rows = list(range(len(packed)))
    passes = packed.batch(rows, 0, groups=3)
    assert 1 < len(passes) <= 3
    together, wanted = masked_logits(model, passes, "cpu")
    separate = []
    for batch in passes:
        for row in range(len(batch["input_ids"])):
            length = int(batch["attention_mask"][row].sum())
            ids, labels = batch["input_ids"][row, :length], batch["labels"][row, :length]
            separate.append(model(ids[None]).logits[0][labels != IGNORED])
    torch.testing.assert_close(together, torch.cat(separate), rtol=0, atol=2e-5)
    assert len(wanted) == len(together) > 20


def test_as_few_passes_as_leave_little_padding() -> None:
    assert len(group_documents([16] * 9)) == 1
    lengths = np.random.default_rng(0).integers(2, 128, size=60).tolist()
    groups = group_documents(lengths)
    padded = [sum(len(group) * max(lengths[at] for at in group) for group in split) for split in (groups, [range(60)])]
    assert padded[0] < 1.1 * sum(lengths) < padded[1] and 1 < len(groups) <= 8
    assert len(group_documents(lengths, 2)) == 2


def test_only_masked_tokens_reach_the_vocabulary() -> None:
    torch.manual_seed(0)
    model = SpectraForMaskedLM(SpectraConfig(**SHAPE)).eval()
    seen: list[int] = []
    model.lm_head.decoder.register_forward_hook(lambda *args: seen.append(args[2].shape[0]))
    passes = sequences().batch(range(4), 0)
    masked_logits(model, passes, "cpu")
    assert seen == [sum(int((batch["labels"] != IGNORED).sum()) for batch in passes)]


def flat(passes: list[dict[str, torch.Tensor]], name: str) -> torch.Tensor:
    return torch.cat([batch[name][batch["attention_mask"].bool()] for batch in passes])


def test_masks_belong_to_seed_epoch_and_sequence() -> None:
    packed = sequences()
    rows = list(range(len(packed)))
    first, again, later = (packed.batch(rows, epoch) for epoch in (0, 0, 1))
    assert torch.equal(flat(first, "input_ids"), flat(again, "input_ids"))
    assert not torch.equal(flat(first, "labels"), flat(later, "labels"))
    assert not torch.equal(flat(first, "labels"), flat(sequences(seed=0).batch(rows[::-1], 1), "labels"))
    part = packed.batch([rows[3]], 0)
    inside = {tuple(row.tolist()) for row in _documents(first)}
    assert {tuple(row.tolist()) for row in _documents(part)} <= inside, "whatever else is in the batch"


def _documents(passes: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    return [
        ids[: int(mask.sum())]
        for batch in passes
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def test_whole_words_are_masked_in_the_shares_asked_for() -> None:
    masking = Masking(rate=0.15, mask=MASK, plain=np.arange(5, VOCABULARY, dtype=np.int32))
    generator = np.random.default_rng(0)
    ids = generator.integers(5, VOCABULARY, size=200_000).astype(np.int32)
    begins = generator.random(len(ids)) < 0.5
    begins[0] = True
    inputs, labels = masking(ids, begins, np.random.default_rng(1))
    guessed = labels != IGNORED
    inside = ~begins[1:]
    assert (guessed[1:][inside] == guessed[:-1][inside]).all(), "a word is masked whole or not at all"
    assert abs(guessed.mean() - 0.15) < 0.01
    assert (labels[guessed] == ids[guessed]).all() and (inputs[~guessed] == ids[~guessed]).all()
    assert abs((inputs[guessed] == MASK).mean() - 0.8) < 0.01
    kept = (inputs[guessed] == ids[guessed]).mean()
    assert abs(kept - (0.1 + 0.1 / 45)) < 0.01


def test_a_sequence_always_has_something_to_guess() -> None:
    packed = sequences(rate=1e-9)
    for row in range(len(packed)):
        assert any((batch["labels"] != IGNORED).any() for batch in packed.batch([row], 0))


def test_special_tokens_are_never_masked_and_work_is_counted() -> None:
    packed, work = sequences(rate=0.9), Work()
    passes = packed.batch(range(len(packed)), 0, work=work)
    assert work.texts == 40 and work.tokens == len(packed.documents.ids) + 80
    for batch in passes:
        ends = batch["attention_mask"].sum(1) - 1
        assert (batch["input_ids"][:, 0] == 2).all() and (batch["labels"][:, 0] == IGNORED).all()
        rows = torch.arange(len(ends))
        assert (batch["input_ids"][rows, ends] == 3).all() and (batch["labels"][rows, ends] == IGNORED).all()


def test_the_perplexity_is_that_of_the_masked_tokens() -> None:
    torch.manual_seed(0)
    model = SpectraForMaskedLM(SpectraConfig(**SHAPE)).train()
    packed = sequences()
    measure = Perplexity(packed, "fp32")
    (value,) = measure(model).values()
    assert model.training and measure(model) == {"dev_perplexity": value}
    losses = []
    model.eval().requires_grad_(False)
    for batch in packed.batch(range(len(packed)), 0):
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            chances = model(ids[None], mask[None]).logits[0].double().log_softmax(-1)
            losses += [-float(chances[at, label]) for at, label in enumerate(labels) if label != IGNORED]
    assert value == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)


def test_every_epoch_has_another_order() -> None:
    order = ShuffledOrder(50, 0)
    before = list(order)
    assert sorted(before) == list(range(50)) and list(order) == before
    order.set_epoch(1)
    assert list(order) != before
