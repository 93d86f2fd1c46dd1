from __future__ import annotations

from spectra_nsa.core.errors import SpectraError, UsageError, missing_extra, unknown_name


def test_an_unknown_name_offers_the_nearest_and_lists_all() -> None:
    error = unknown_name("pooling", "maen", ["mean", "cls"])
    assert isinstance(error, UsageError)
    assert str(error) == "unknown pooling 'maen'. Did you mean 'mean'? Valid: mean, cls."


def test_a_name_like_none_gets_the_list_alone() -> None:
    assert str(unknown_name("pooling", "zzz", ["mean", "cls"])) == "unknown pooling 'zzz'. Valid: mean, cls."


def test_names_keep_their_order_and_may_be_any_iterable() -> None:
    assert str(unknown_name("key", 7, iter(("b", "a")))).endswith("Valid: b, a.")


def test_a_usage_error_is_a_spectra_error_and_that_a_value_error() -> None:
    assert issubclass(UsageError, SpectraError) and issubclass(SpectraError, ValueError)


def test_a_missing_package_comes_with_its_remedy() -> None:
    error = missing_extra("bm25s", "eval")
    assert not isinstance(error, UsageError)
    assert "bm25s" in str(error) and 'pip install "spectra-nsa[eval]"' in str(error)
