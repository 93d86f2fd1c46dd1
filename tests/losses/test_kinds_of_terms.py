"""Terms of dense and of sparse models stay apart."""

from __future__ import annotations

import pytest

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.config.terms import TERM_FACTS, live_terms
from spectra_nsa.core.errors import UsageError
from spectra_nsa.training.checks import check_terms, sparse_notes

PAIRS = ["anchor", "positive"]


def test_a_recipe_has_the_terms_of_its_kind() -> None:
    dense, sparse = (load_recipe(None, words) for words in ([], ["sparse.kind=splade"]))
    assert {TERM_FACTS[name].model_kind for name in live_terms(dense, PAIRS)} == {"dense"}
    assert live_terms(sparse, PAIRS) == ["sparse_semantic", "query_flops", "document_flops"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loss.terms.query_l1.weight=1"], "query_l1 is a term of sparse models.*set sparse.kind=splade"),
        (["sparse.kind=splade", "loss.terms.triplet.weight=1"], "triplet is a term of dense models"),
        (["sparse.kind=splade", "data.sets={a: {train: x.jsonl, terms: [semantic]}}"], "data.sets.a.terms: semantic"),
    ],
)
def test_a_term_of_the_other_kind_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_terms(load_recipe(None, words))


def test_a_term_that_is_off_is_off_in_any_model() -> None:
    check_terms(load_recipe(None, ["sparse.kind=splade", "loss.terms.semantic.weight=0"]))


def test_a_side_without_regularizers_is_noted() -> None:
    words = ["sparse.kind=splade", "loss.terms.query_flops.weight=0", "loss.terms.document_flops.weight=0"]
    assert len(sparse_notes(load_recipe(None, words))) == 2
    assert len(sparse_notes(load_recipe(None, [*words, "sparse.kind=inference_free"]))) == 1
    assert sparse_notes(load_recipe(None, ["loss.terms.query_flops.weight=0"])) == []
