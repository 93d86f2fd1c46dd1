"""The terms of the loss (docs/model.md, section 7): named outputs of a batch in, named values out.

A term has two halves. Its facts (weight, rows, part, …) are a `TermFacts` in `config/terms/`; what it computes is a
`Term` in one file for each family here, a pure function of a `TermBatch`. Terms own no parameters.

A term of your own needs both halves and one call before anything else of the package is imported. Save this as
`my_term.py`:

    from spectra_nsa.config.terms import TermFacts
    from spectra_nsa.losses.terms import Term, TermBatch, register

    def compute(batch: TermBatch):
        return batch.texts("embedding").norm(dim=-1).var()

    register(
        Term("length", ("embedding",), compute),
        TermFacts(name="length", about="evens out the vectors' lengths", rows=frozenset({"pairs", "triplets"})),
    )

Then `python -c "import my_term; from spectra_nsa.cli.main import main; main()" train recipe.yaml
loss.terms.length.weight=0.1` trains with it, logs it and measures its gradient; `spectra ablate` called in the same way
has it in its catalogue.

Legend: N texts (all anchors, then all positives, then any negatives), B rows, D the width of the embedding.
"""

from __future__ import annotations

from spectra_nsa.config.terms import TermFacts, add_term_facts
from spectra_nsa.losses.terms import (
    distillation,
    geometry,
    hard_negatives,
    heads,
    routing,
    scored_pairs,
    semantic,
    sparse_ranking,
    sparsity,
)
from spectra_nsa.losses.terms.term import Term, TermBatch

__all__ = ["TERMS", "Term", "TermBatch", "TermFacts", "register"]

_FAMILIES = (semantic, scored_pairs, hard_negatives, geometry, heads, distillation, routing, sparse_ranking, sparsity)
TERMS: dict[str, Term] = {term.name: term for family in _FAMILIES for term in family.TERMS}


def register(term: Term, facts: TermFacts) -> None:
    """Adds a term of your own (see the module's docstring).

    Raises:
        UsageError: the name is taken, or recipes have been defined already.
    """
    assert term.name == facts.name
    add_term_facts(facts)
    TERMS[term.name] = term
