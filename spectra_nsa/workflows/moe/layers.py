"""The figures of one layer with experts: its load, its gate, and what its choices follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.metrics import routing as measure
from spectra_nsa.metrics.cka import linear_cka
from spectra_nsa.workflows.moe.collect import Routes
from spectra_nsa.workflows.moe.texts import TextTable

CLOSE = 1e-5  # a margin that rounding can bridge
DEAD = 0.1  # of an equal share
ENOUGH = 10_000  # choices after which an expert without load is called dead
TOP = 12  # tokens named for each expert


def layer_facts(
    routes: Routes,
    at: int,
    table: TextTable,
    names: Sequence[str],
    *,
    experts: int,
    special: Sequence[int],
    rounds: int,
) -> dict[str, Any]:
    """Returns the figures of a layer.

    Args:
        routes: the choices of all layers.
        at: the layer's place among those with experts.
        table: the texts.
        names: of the domains.
        experts: E.
        special: ids of special tokens, which have a row of their own and count for no domain.
        rounds: the permutations behind each null.
    """
    chosen_NK = routes.chosen[at]
    share_E = measure.load_shares(chosen_NK, experts)
    margin_N = routes.margin_LN[at]
    dead = [int(expert) for expert in np.flatnonzero(share_E < DEAD / experts)] if len(chosen_NK) >= ENOUGH else []
    facts: dict[str, Any] = {
        "load": rounded(share_E),
        "dead": dead,
        "unused": [expert for expert in range(experts) if not (chosen_NK == expert).any()],
        **{name: round(value, 4) for name, value in measure.load_figures(share_E).items()},
        "gate_entropy": round(float(routes.entropy_LN[at].mean()), 4),
        "margin_median": round(float(np.median(margin_N)), 5),
        "margin_below_1e-5": round(float((margin_N < CLOSE).mean()), 6),
    }
    domain_N = table.domain_T[routes.text_N]
    is_special_N = np.zeros(len(domain_N), bool) if routes.ids_N is None else np.isin(routes.ids_N, special)
    facts |= _domains(chosen_NK, domain_N, is_special_N, experts, names)
    facts |= _information(routes, at, table, ~is_special_N, rounds, experts)
    use_TE = measure.shares_by_group(chosen_NK, routes.text_N, len(table.texts), experts)
    facts |= _texts(chosen_NK[:, 0], use_TE, routes, table)
    if chosen_NK.shape[1] > 1:
        facts["coactivation"] = rounded(measure.coactivation(chosen_NK, experts))
    return facts


def _domains(
    chosen_NK: NDArray[Any],
    domain_N: NDArray[Any],
    special_N: NDArray[Any],
    experts: int,
    names: Sequence[str],
) -> dict[str, Any]:
    """Returns P(e | domain) and its base-2 logarithm over P(e), without special tokens, and their own row."""
    of_domains = measure.shares_by_group(chosen_NK[~special_N], domain_N[~special_N], len(names), experts)
    share_E = measure.load_shares(chosen_NK[~special_N], experts)  # of the same tokens
    lift = np.log2(np.maximum(of_domains, 1e-4) / np.maximum(share_E, 1e-4))
    facts: dict[str, Any] = {
        "domains": dict(zip(names, rounded(of_domains), strict=True)),
        "lift": dict(zip(names, rounded(lift, 3), strict=True)),
    }
    if special_N.any():
        facts["special_tokens"] = rounded(measure.load_shares(chosen_NK[special_N], experts))
    return facts


def _information(
    routes: Routes, at: int, table: TextTable, kept_N: NDArray[Any], rounds: int, experts: int
) -> dict[str, Any]:
    """Returns what the choices say of domains and tokens, beside chance.

    Choices in a text depend on each other. So chance is, for domains, that the domains of whole texts and pairs are
    shuffled; and for the domain beyond the token, whichever of two reaches higher: that, or experts shuffled among
    equal tokens, whose mean is what a router by token would get.
    """
    first_N, text_N = routes.chosen[at][kept_N, 0], routes.text_N[kept_N]
    domain_N = table.domain_T[text_N]
    facts: dict[str, Any] = {}
    several = len(np.unique(domain_N)) > 1
    relabelled = _relabelled(table, rounds) if several else []
    if several:
        null = [measure.shared_information(first_N, labels_T[text_N], of="group") for labels_T in relabelled]
        value = measure.shared_information(first_N, domain_N, of="group")
        facts["domain_information"] = measure.beside(value, null).facts()
    if routes.ids_N is None:
        return facts
    anywhere = measure.shuffles_of(len(first_N), rounds, seed=0)
    ids_N = np.unique(routes.ids_N[kept_N], return_inverse=True)[1]
    facts["token_information"] = measure.against_chance(
        lambda e: measure.shared_information(e, ids_N, of="experts"), first_N, anywhere
    ).facts()
    if several:
        within = measure.shuffles_of(len(first_N), rounds, seed=1, within=ids_N)
        beyond = measure.against_chance(lambda e: measure.information_beyond(e, domain_N, ids_N), first_N, within)
        null = [measure.information_beyond(first_N, labels_T[text_N], ids_N) for labels_T in relabelled]
        highest = max(beyond.null_95, float(np.quantile(null, 0.95)))
        facts["domain_beyond_token"] = replace(beyond, null_95=highest).facts()
    for name, by_occurrence in (("vocabulary", False), ("vocabulary_by_occurrence", True)):
        facts[name] = measure.against_chance(
            lambda e, how=by_occurrence: measure.vocabulary(e, ids_N, experts, by_occurrence=how),  # type: ignore[misc]
            first_N,
            anywhere,
        ).facts()
    return facts


def _relabelled(table: TextTable, rounds: int) -> list[NDArray[np.int64]]:
    """Returns domains of the texts after shuffling them over texts and pairs: (T,) each."""
    units, unit_T = np.unique(table.unit_T, return_inverse=True)
    return [table.domain_T[units[order]][unit_T] for order in measure.shuffles_of(len(units), rounds, seed=4)]


def _texts(first_N: NDArray[Any], use_TE: NDArray[Any], routes: Routes, table: TextTable) -> dict[str, Any]:
    """Returns how alike the choices within a text, of neighboring tokens, and of queries and their documents are."""
    facts: dict[str, Any] = {}
    if routes.ids_N is not None:
        facts["locality"] = round(measure.locality(first_N, routes.text_N), 4)
        facts["locality_by_chance"] = round(
            float((measure.load_shares(first_N[:, None], use_TE.shape[1]) ** 2).sum()), 4
        )
        facts["modal_share"] = round(float(use_TE.max(1).mean()), 4)
    if len(table.pairs_P2) > 1:
        left, right = table.pairs_P2.T
        domain_P = table.domain_T[left]
        shuffled = measure.shuffles_of(len(left), 1, seed=2)[0]
        within = measure.shuffles_of(len(left), 1, seed=3, within=domain_P)[0]
        figures = {
            "value": measure.agreement(use_TE[left], use_TE[right]),
            "random_pairs": measure.agreement(use_TE[left], use_TE[right[shuffled]]),
            "random_pairs_of_a_domain": measure.agreement(use_TE[left], use_TE[right[within]]),
        }
        facts["pair_agreement"] = {name: round(float(values.mean()), 4) for name, values in figures.items()}
    return facts


def distances(weights: Sequence[NDArray[Any]], outputs_END: NDArray[Any], groups: int) -> dict[str, Any]:
    """Returns how different experts are: ‖E_i − E_j‖ / ‖E_i‖ of their weights, and 1 − CKA of their outputs.

    Args:
        weights: the stacked weights, each (E, …).
        outputs_END: what each expert computes for the same states.
        groups: slices of a network stand in groups; the means are over pairs within a group.
    """
    flat_EW = np.concatenate([weight.reshape(len(weight), -1) for weight in weights], axis=1).astype(np.float64)
    norms_E = np.linalg.norm(flat_EW, axis=1)
    apart = np.array([np.linalg.norm(flat_EW - row, axis=1) for row in flat_EW]) / np.maximum(norms_E, 1e-12)[:, None]
    experts = len(flat_EW)
    cka = np.eye(experts)
    for i in range(experts):
        for j in range(i):
            cka[i, j] = cka[j, i] = linear_cka(outputs_END[i], outputs_END[j])
    group_E = np.arange(experts) // (experts // groups)
    off = (group_E[:, None] == group_E) & ~np.eye(experts, dtype=bool)
    return {
        "weights": round(float(apart[off].mean()), 5),
        "outputs": round(float(1 - cka[off].mean()), 5),
        "weights_by_pair": rounded(apart),
        "outputs_by_pair": rounded(1 - cka),
    }


def top_tokens(routes: Routes, at: int, words: Mapping[int, str], experts: int) -> list[list[dict[str, Any]]]:
    """Returns by expert the token ids that most firmly belong to it, of those with 10 or more occurrences."""
    assert routes.ids_N is not None
    ids, at_N, counts = np.unique(routes.ids_N, return_inverse=True, return_counts=True)
    share = measure.shares_by_group(routes.chosen[at][:, :1], at_N, len(ids), experts)
    found: list[list[dict[str, Any]]] = []
    for expert in range(experts):
        often = np.flatnonzero((counts >= measure.LEAST) & (share.argmax(1) == expert))
        best = often[np.lexsort((-counts[often], -share[often, expert]))][:TOP]
        found.append(
            [
                {"token": words[int(ids[i])], "share": round(float(share[i, expert]), 3), "count": int(counts[i])}
                for i in best
            ]
        )
    return found


def rounded(values: NDArray[Any], digits: int = 4) -> Any:
    """Returns an array as nested lists of rounded numbers."""
    return np.round(values.astype(float), digits).tolist()
