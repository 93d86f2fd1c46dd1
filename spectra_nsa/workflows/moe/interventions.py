"""What experts are worth: retrieval with an expert taken away, with scrambled choices, and with few experts.

The measure is nDCG@10 of each query, which has one right document, among the documents of all domains together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.console import console, progress
from spectra_nsa.metrics import routing as measure
from spectra_nsa.metrics.bootstrap import paired_difference
from spectra_nsa.metrics.effects import holm
from spectra_nsa.metrics.known_item import known_item_ndcg
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.workflows.moe import edits
from spectra_nsa.workflows.moe.collect import Routes, expert_layers, vectors_of
from spectra_nsa.workflows.moe.texts import Domain, TextTable, text_table

_WAYS = ("removed", "silenced")


class Quality:
    """Measures a model on the pairs of domains.

    Args:
        model: with experts.
        domains: those without pairs are left out.
        pairs: the largest number of pairs of a domain.
    """

    def __init__(self, model: SpectraSentenceTransformer, domains: Sequence[Domain], pairs: int) -> None:
        self.model = model
        self.domains = [
            Domain(name=domain.name, queries=domain.queries[:pairs], documents=domain.documents[:pairs])
            for domain in domains
            if len(domain.queries) > 1
        ]
        self.table = text_table(self.domains)

    def measure(self, edit: edits.Edit | None = None) -> dict[str, NDArray[np.float64]]:
        """Returns nDCG@10 of the queries by domain, with the router's choices or others."""
        with nullcontext() if edit is None else edits.rerouted(self.model, edit):
            vectors_TD = vectors_of(self.model, self.table)
        return self._by_domain(vectors_TD, self.table)

    def measure_own(self, domain: int, edit: edits.Edit | None = None) -> NDArray[np.float64]:
        """Returns nDCG@10 of a domain's queries among its own documents."""
        table = text_table([self.domains[domain]])
        with nullcontext() if edit is None else edits.rerouted(self.model, edit):
            vectors_TD = vectors_of(self.model, table)
        return next(iter(self._by_domain(vectors_TD, table, at=domain).values()))

    def _by_domain(self, vectors_TD: NDArray[Any], table: TextTable, at: int = 0) -> dict[str, NDArray[np.float64]]:
        left, right = table.pairs_P2.T
        first: dict[str, int] = {}  # a document that occurs twice is one
        place_P = np.array([first.setdefault(table.texts[place], len(first)) for place in right])
        distinct = right[np.unique(place_P, return_index=True)[1]]
        gain_P = known_item_ndcg(vectors_TD[left] @ vectors_TD[distinct].T, place_P)
        domain_P = table.domain_T[left]
        return {self.domains[at + number].name: gain_P[domain_P == number] for number in np.unique(domain_P)}


def say_searches(quality: Quality, seconds: float) -> None:
    """Prints to standard error how many searches follow, and how long they take if each is like the first.

    Args:
        quality: what is measured.
        seconds: of the first search.
    """
    layers = expert_layers(quality.model)
    count = len(_WAYS) * sum(layer.spec.count for layer in layers) + (2 if layers[0].spec.by_text else 3)
    minutes = seconds * (count + layers[0].spec.count) / 60  # those with few experts search domain by domain
    about = f"about {minutes:.0f} min" if minutes >= 1 else "less than a minute"
    text = f"what experts are worth: {count} searches and those with few experts, {about}; --pairs 0 leaves them out"
    console(stderr=True).print(text, markup=False)


def ablate_experts(quality: Quality, before: dict[str, NDArray[np.float64]]) -> list[dict[str, Any]]:
    """Takes each expert of each layer away, one at a time.

    *Removed*: its tokens go to the next best expert. *Silenced*: they stay, and it contributes nothing.

    Returns:
        by layer and expert, by way and domain the change of nDCG@10 with its interval, and p after Holm's correction
        for all of them.
    """
    layers = expert_layers(quality.model)
    cells = [(at, expert) for at, layer in enumerate(layers) for expert in range(layer.spec.count)]
    found: list[dict[str, Any]] = []
    for at, expert in progress(cells, label="taking experts away"):
        for way, edit in zip(_WAYS, (edits.without(at, [expert]), edits.silenced(at, expert)), strict=True):
            after = quality.measure(edit)
            for name, values in after.items():
                found.append(
                    {"layer": at, "expert": expert, "way": way, "domain": name} | _change(values, before[name])
                )
    adjusted = holm([cell["p"] for cell in found])
    return [cell | {"p_holm": round(p, 5)} for cell, p in zip(found, adjusted, strict=True)]


def scramble(quality: Quality, before: dict[str, NDArray[np.float64]], seed: int) -> dict[str, Any]:
    """Replaces all choices: each expert's tokens go to another, all are drawn, or the token id alone decides.

    The router ``"smear"`` chooses nothing that could be replaced: the result is empty.
    """
    if expert_layers(quality.model)[0].spec.router == "smear":
        return {}
    ways = {"experts exchanged": edits.permuted(seed), "drawn at random": edits.at_random(seed)}
    if not expert_layers(quality.model)[0].spec.by_text:
        ways["by token id"] = edits.by_token
    found = {}
    for way, edit in ways.items():
        after = quality.measure(edit)
        found[way] = {name: _change(values, before[name]) for name, values in after.items()}
    return found


def subsets(quality: Quality, routes: Routes, table: TextTable, all_names: Sequence[str]) -> dict[str, list[float]]:
    """Keeps the m experts of each layer that a domain uses most, for m from 1 to E.

    Returns:
        by domain, nDCG@10 among its own documents for each m that a router can do with.
    """
    layers = expert_layers(quality.model)
    spec = layers[0].spec
    size = spec.count // spec.groups
    least = 1 if spec.sliced else spec.top_k
    found: dict[str, list[float]] = {}
    for number, domain in enumerate(progress(quality.domains, label="keeping few experts")):
        chosen_N = table.domain_T[routes.text_N] == list(all_names).index(domain.name)
        loads = [measure.load_shares(chosen_NK[chosen_N], spec.count) for chosen_NK in routes.chosen]
        found[domain.name] = []
        for kept in range(least, size + 1):
            best = [list(_best(load_E, kept, spec.groups)) for load_E in loads]
            found[domain.name].append(round(float(quality.measure_own(number, edits.only(best)).mean()), 4))
    return found


def _best(load_E: NDArray[Any], kept: int, groups: int) -> Iterator[int]:
    """Yields the experts with the largest loads of each group."""
    size = len(load_E) // groups
    for group in range(groups):
        part = load_E[group * size : (group + 1) * size]
        yield from (int(group * size + expert) for expert in np.argsort(-part, kind="stable")[:kept])


def _change(after: NDArray[np.float64], before: NDArray[np.float64]) -> dict[str, Any]:
    """Returns the change of a mean with its interval, and p of a paired t-test."""
    from scipy import stats

    difference = paired_difference(after, before)
    gap = after - before
    if np.ptp(gap) == 0:  # all queries change alike, or none does: a t-test has no variance
        p = 2.0 ** (1 - len(gap)) if gap.any() else 1.0  # of the signs
    else:
        p = float(stats.ttest_1samp(gap, 0.0).pvalue)
    return {"change": round(difference.value, 5), "ci": [round(end, 5) for end in difference.ci], "p": p}
