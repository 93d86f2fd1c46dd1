"""Grouping by length changes how vectors are computed, not what they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spectra_nsa as sp
from spectra_nsa.tokens.length_batches import (
    build_batch,
    embed_by_length,
    outputs_by_length,
    plan_passes,
)
from spectra_nsa.tokens.lengths import group_by_length, group_by_tokens

ANCHORS = ["open a file", "sort", "read the socket and write the list", "close"]
POSITIVES = ["def open(file): " * 3, "sort list of text", "x", "close the file and the socket and the list"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 12))
def test_every_text_is_in_exactly_one_group(lengths: list[int], groups: int) -> None:
    split = group_by_length(lengths, groups)
    assert sorted(itertools.chain.from_iterable(split)) == list(range(len(lengths)))
    assert len(split) <= groups
    areas = [len(group) * max(lengths[i] for i in group) for group in split]
    assert sum(areas) <= len(lengths) * max(lengths)


def test_the_split_is_the_cheapest_of_all() -> None:
    lengths = [8, 16, 16, 24, 40, 40, 64, 120, 8, 32]
    ordered = sorted(lengths)

    def area(cuts: tuple[int, ...]) -> int:
        edges = [0, *cuts, len(ordered)]
        return sum((b - a) * ordered[b - 1] for a, b in itertools.pairwise(edges))

    for groups in (1, 2, 3, 4):
        best = min(area(cuts) for cuts in itertools.combinations(range(1, len(ordered)), groups - 1))
        split = group_by_length(lengths, groups)
        assert sum(len(group) * max(lengths[i] for i in group) for group in split) == best


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 900))
def test_no_group_holds_more_tokens_than_allowed(lengths: list[int], tokens: int) -> None:
    split = group_by_tokens(lengths, tokens)
    assert sorted(itertools.chain.from_iterable(split)) == list(range(len(lengths)))
    areas = [len(group) * max(lengths[i] for i in group) for group in split]
    assert all(area <= tokens or len(group) == 1 for area, group in zip(areas, split, strict=True))
    for group, after in itertools.pairwise(split):  # none is closed before it is full
        assert (len(group) + 1) * lengths[after[0]] > tokens


@pytest.mark.parametrize("by", [{"groups": 2}, {"tokens": 16}])
def test_columns_with_prompts_of_their_own_length_stay_apart(by: dict[str, int]) -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1]])
    features = [
        {"input_ids": mask * (10 * (column + 1)), "attention_mask": mask, "prompt_length": column} for column in (0, 1)
    ]
    passes = plan_passes(features, **by)
    assert sorted(itertools.chain.from_iterable(passes)) == [(c, r) for c in (0, 1) for r in range(3)]
    for rows in passes:
        (column,) = {column for column, _ in rows}
        batch = build_batch(features, rows)
        assert batch["prompt_length"] == column
        assert batch["input_ids"].unique().tolist()[-1] == 10 * (column + 1)
        assert batch["attention_mask"].sum(1).max() == batch["input_ids"].shape[1], "cut to the longest"


@pytest.mark.parametrize("groups", [1, 2, 5, None])
def test_embeddings_and_gradients_equal_one_padded_pass(make_bert: Callable[..., Path], groups: int | None) -> None:
    model = sp.warm_start(make_bert(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)

    def run(split: int | None) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        model.train()
        model.zero_grad()
        features = [model.preprocess(ANCHORS), model.preprocess(POSITIVES)]
        vectors = embed_by_length(model, features, split)
        (vectors[0] @ vectors[1].T).cos().sum().backward()
        return vectors, [w.grad.clone() for w in model.parameters() if w.grad is not None]

    ours, plain = run(groups), [model(model.preprocess(texts))["sentence_embedding"] for texts in (ANCHORS, POSITIVES)]
    one = run(1)
    for mine, wanted in zip(ours[0], plain, strict=True):
        assert (mine - wanted).abs().max() <= 1e-6
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours[1], one[1], strict=True))


@pytest.mark.parametrize("heads", [("sentence_embedding",), ("embedding", "entity", "fast_logits")])
def test_tokens_looked_up_once_a_batch_give_the_same(make_bert: Callable[..., Path], heads: tuple[str, ...]) -> None:
    model = sp.warm_start(make_bert(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, entity=True)
    table = model.spectra.get_input_embeddings()
    lookups: list[int] = []
    table.register_forward_hook(lambda module, given, out: lookups.append(given[0].numel()))

    def run(shared: torch.nn.Module | None) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        model.train()
        model.zero_grad()
        lookups.clear()
        features = [model.preprocess(ANCHORS), model.preprocess(POSITIVES)]
        if heads != ("sentence_embedding",):
            features = [column | {"spectra_outputs": heads} for column in features]
        columns = outputs_by_length(model, features, 4, heads, table=shared)
        found = {name: torch.cat([column[name] for column in columns]) for name in heads}
        sum((value * torch.arange(value.numel()).view_as(value).cos()).sum() for value in found.values()).backward()
        gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        return {name: value.detach() for name, value in found.items()}, gradients

    each, gradients = run(None)
    assert len(lookups) > 1
    once, again = run(table)
    used = {int(token) for column in (ANCHORS, POSITIVES) for token in model.preprocess(column)["input_ids"].unique()}
    assert lookups == [len(used)]
    assert all(torch.equal(each[name], once[name]) for name in heads)
    assert gradients.keys() == again.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
