"""Facts and functions of the terms belong together, and a term of one's own joins them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.terms import TERM_FACTS
from spectra_nsa.core.errors import UsageError
from spectra_nsa.heads.kinds import OUTPUTS, ROUTING_OUTPUTS
from spectra_nsa.losses import terms
from spectra_nsa.losses.terms import TERMS, register

USE = """
import sys
import my_term
from spectra_nsa.config.ablation.parts import PARTS
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.config.terms import live_terms

recipe = load_recipe(None, ["loss.terms.length.weight=0.1"])
assert "length" in live_terms(recipe, ["anchor", "positive"])
assert "length" not in live_terms(recipe, ["anchor"])
assert "length" in PARTS
"""


def test_every_term_has_facts_and_a_function() -> None:
    assert set(TERMS) == set(TERM_FACTS) == set(type(Recipe().loss.terms).model_fields)
    for name, term in TERMS.items():
        assert (
            term.name == name
            and set(term.outputs) <= {*OUTPUTS, *ROUTING_OUTPUTS, "sparse"}
            and term.head in (None, *term.outputs)
        )
        assert TERM_FACTS[name].train_encoder or term.head or name == "anomaly"


def test_the_documented_example_is_a_term_of_a_recipe(tmp_path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(Path(terms.__file__).read_text(encoding="utf-8"))) or ""
    code = "\n".join(line[4:] for line in docstring.splitlines() if line.startswith("    "))
    (tmp_path / "my_term.py").write_text(code)
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_taken_and_a_term_that_comes_late_are_refused() -> None:
    with pytest.raises(UsageError, match="a loss term 'triplet' already"):
        register(TERMS["triplet"], TERM_FACTS["triplet"])
    late = terms.TermFacts(name="late", about="", rows=frozenset())
    with pytest.raises(UsageError, match="before anything else"):
        register(terms.Term("late", (), lambda batch: batch.texts("embedding").sum()), late)
