"""Pairs from the Python environment."""

from __future__ import annotations

import ast
import sysconfig

import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.readers import python_env
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.text.sources import load_source


def function(name, doc):
    return f'def {name}(x):\n    """{doc}"""\n    y = x * 2\n    return y + len("{name}")\n\n\n'


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Writes an environment of two packages, a module and files that must be skipped."""
    files = {
        "alpha/__init__.py": function("one", "Does the first thing here."),
        "alpha/b.py": function("two", "Does the second thing here.") + function("again", "Does the first thing here."),
        "alpha/broken.py": "def f(: 'x'\n",
        "alpha/tests/test_a.py": function("skipped", "Must not be in the pairs."),
        "alpha/test_b.py": function("skipped2", "Must not be in the pairs either."),
        "alpha/_vendor/six.py": function("skipped3", "Must never be in the pairs."),
        "beta/__init__.py": "".join(
            function(f"f{i}", f"Does thing number {'abcdefgh'[i] * 3} here.") for i in range(8)
        ),
        "gamma.py": function("three", "Does the third thing here."),
        "gamma-1.0.dist-info/x.py": function("no", "Metadata is not a package."),
    }
    for name, text in files.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(python_env.sysconfig, "get_path", lambda key: str(tmp_path / "site"))
    return tmp_path / "site"


def test_installed(site):
    found = environment_pairs("installed")
    assert found.dataset.column_names == ["anchor", "positive", "group", "name", "path", "line"]
    names = list(found.dataset["name"])
    assert names[:2] == ["alpha.one", "alpha.b.two"]
    assert names[-1] == "gamma.three"
    assert len(names) == 11
    assert (found.quarantined, found.problems[0].line) == (1, 1)
    assert "SyntaxError" in found.problems[0].reason


def test_caps(site):
    capped = environment_pairs("installed", per_package=2).dataset
    assert list(capped["group"]).count("beta") == 2
    assert capped.to_list() == environment_pairs("installed", per_package=2).dataset.to_list()
    limited = environment_pairs("installed", limit=3)
    assert list(limited.dataset["group"]) == ["alpha", "beta", "beta"]
    assert limited.notes == ("3 of 11 pairs, evenly spaced",)
    with pytest.raises(UsageError):
        environment_pairs("installed", limit=0)


def test_cache(site, tmp_path):
    first = environment_pairs("installed", cache_dir=tmp_path / "cache")
    (site / "gamma.py").unlink()
    again = environment_pairs("installed", cache_dir=tmp_path / "cache")
    assert again.dataset.to_list() == first.dataset.to_list()
    assert again.problems == first.problems
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_bytes(cache.read_bytes()[:50])  # a damaged cache is ignored
    assert len(environment_pairs("installed", cache_dir=tmp_path / "cache").dataset) == 10


def test_named_packages():
    found = load_source("python:json,csv")
    assert set(found.dataset["group"]) == {"csv", "json"}
    assert found.dataset["path"][0].startswith("csv.py")
    with pytest.raises(SpectraError, match="Did you mean 'json'"):
        load_source("python:jsonn")
    with pytest.raises(SpectraError, match="no Python source"):
        load_source("python:sys")
    with pytest.raises(UsageError, match="fixed columns"):
        load_source("python:json", split="train")
    with pytest.raises(SpectraError, match="unknown source"):
        load_source("python:")


def test_the_standard_library():
    found = environment_pairs("stdlib").dataset
    assert 3_000 < len(found) < 6_000
    assert len(set(found["anchor"])) == len(set(found["positive"])) == len(found)
    for row in found.select(range(0, len(found), 20)):
        assert ast.get_docstring(ast.parse(row["positive"]).body[0]) is None
        assert row["anchor"] not in " ".join(row["positive"].split())
    assert not any(part in path for path in found["path"] for part in ("idlelib", "site-packages", "/test/"))
    assert sysconfig.get_path("stdlib") not in found["path"][0]
