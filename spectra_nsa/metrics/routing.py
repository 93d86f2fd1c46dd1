"""What routing to experts follows: load, domains, words, neighbors, pairs. Arrays of choices in, numbers out.

A choice is what a router decided for one token, or for one text. Legend: N choices, K experts of each (the first is the
one with the largest gate), E experts, G groups such as domains, T texts. Entropies are in bits, with the correction of
Miller and Madow (1955): H = −Σ p log p + (occupied cells − 1) / 2N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEAST = 10  # occurrences of a token id that is counted


@dataclass(frozen=True, kw_only=True)
class AgainstChance:
    """A figure beside what it would be if the experts were shuffled.

    Attributes:
        value: the figure.
        null: its mean over the permutations.
        null_95: their 95 % quantile.
    """

    value: float
    null: float
    null_95: float

    def facts(self) -> dict[str, float]:
        """Returns the numbers by name, with ``excess`` = value − null."""
        return {name: round(number, 5) for name, number in (asdict(self) | {"excess": self.value - self.null}).items()}


def against_chance(
    figure: Callable[[np.ndarray], float], choices_N: np.ndarray, shuffles: list[np.ndarray]
) -> AgainstChance:
    """Computes a figure of the choices, and of each permutation of them.

    Args:
        figure: maps choices (N,) to a number.
        choices_N: the experts.
        shuffles: permutations of 0 … N − 1.
    """
    return beside(figure(choices_N), [figure(choices_N[order]) for order in shuffles])


def beside(value: float, null: list[float]) -> AgainstChance:
    """Returns a figure beside those of chance."""
    import numpy as np

    return AgainstChance(value=value, null=float(np.mean(null)), null_95=float(np.quantile(null, 0.95)))


def shuffles_of(n: int, rounds: int, seed: int, within: np.ndarray | None = None) -> list[np.ndarray]:
    """Returns permutations of n choices.

    Args:
        n: the number of choices.
        rounds: the number of permutations.
        seed: of the permutations.
        within: (N,) labels; choices are exchanged only among those of the same label. ``None`` for all.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    if within is None:
        return [generator.permutation(n) for _ in range(rounds)]
    home = np.argsort(within, kind="stable")
    found = []
    for _ in range(rounds):
        order = np.empty(n, dtype=np.int64)
        order[home] = np.lexsort((generator.random(n), within))
        found.append(order)
    return found


def load_shares(chosen_NK: np.ndarray, experts: int) -> np.ndarray:
    """Returns the share of the choices that each expert got: (E,), with sum 1."""
    import numpy as np

    counts = np.bincount(chosen_NK.ravel(), minlength=experts)
    return counts / max(counts.sum(), 1)


def load_figures(share_E: np.ndarray) -> dict[str, float]:
    """Returns ``max_violation`` (largest load / mean − 1), ``load_entropy`` (1 if even) and ``effective_experts``."""
    import numpy as np

    positive = share_E[share_E > 0]
    entropy = float(-(positive * np.log(positive)).sum())
    return {
        "max_violation": float(share_E.max() * len(share_E) - 1),
        "load_entropy": entropy / float(np.log(len(share_E))),
        "effective_experts": float(np.exp(entropy)),
    }


def saturation(chosen_NK: np.ndarray, last_NK: np.ndarray) -> float:
    """Returns the share of choices that a later model makes too (OLMoE, Muennighoff et al. 2024): mean |S ∩ S'| / K."""
    return float((chosen_NK[:, :, None] == last_NK[:, None, :]).any(2).mean())


def coactivation(chosen_NK: np.ndarray, experts: int) -> np.ndarray:
    """Returns how often expert j is chosen where expert i is, over all pairs of a choice: (E, E), 0 on the diagonal."""
    import numpy as np

    chosen_NE = np.zeros((len(chosen_NK), experts))
    np.put_along_axis(chosen_NE, chosen_NK, 1.0, axis=1)
    together_EE = chosen_NE.T @ chosen_NE
    of_E = together_EE.diagonal().copy()
    np.fill_diagonal(together_EE, 0.0)
    return together_EE / np.maximum(of_E, 1)[:, None]


def transitions(below_N: np.ndarray, above_N: np.ndarray, experts: int) -> np.ndarray:
    """Returns P(expert above | expert below) of two layers: (E, E), rows with sum 1 or 0."""
    return shares_by_group(above_N[:, None], below_N, experts, experts)


def shares_by_group(chosen_NK: np.ndarray, group_N: np.ndarray, groups: int, experts: int) -> np.ndarray:
    """Returns the share of each group's choices that each expert got: (G, E), rows with sum 1 or 0."""
    import numpy as np

    codes = (group_N[:, None].astype(np.int64) * experts + chosen_NK).ravel()
    counts = np.bincount(codes, minlength=groups * experts).reshape(groups, experts)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def vocabulary(first_N: np.ndarray, ids_N: np.ndarray, experts: int, *, by_occurrence: bool = False) -> float:
    """Returns how firmly token ids belong to experts: the mean over ids with 10 or more occurrences of the largest
    share that one expert has (OLMoE's vocabulary specialization).

    Args:
        first_N: the first expert of each token.
        ids_N: its id.
        experts: E.
        by_occurrence: whether ids count by their occurrences instead of once each.
    """
    import numpy as np

    names, at_N, counts = np.unique(ids_N, return_inverse=True, return_counts=True)
    share = shares_by_group(first_N[:, None], at_N, len(names), experts).max(1)
    often = counts >= LEAST
    if not often.any():
        return float("nan")
    return float(np.average(share[often], weights=counts[often] if by_occurrence else None))


def entropy(*columns: np.ndarray) -> float:
    """Returns the entropy of the joint values of (N,) arrays of integers, in bits."""
    import numpy as np

    codes = columns[0].astype(np.int64)
    for column in columns[1:]:
        codes = codes * (int(column.max()) + 1) + column
    _, counts = np.unique(codes, return_counts=True)
    share = counts / counts.sum()
    return float((-(share * np.log(share)).sum() + (len(counts) - 1) / (2 * counts.sum())) / np.log(2))


def shared_information(choices_N: np.ndarray, group_N: np.ndarray, *, of: str) -> float:
    """Returns I(e; g) as a share of what could be known: of H(g) or of H(e); 0 if that is 0.

    Args:
        choices_N: e, the experts.
        group_N: g, such as domains or token ids.
        of: ``"group"`` for I / H(g), ``"experts"`` for I / H(e).
    """
    experts, groups = entropy(choices_N), entropy(group_N)
    whole = groups if of == "group" else experts
    return (experts + groups - entropy(choices_N, group_N)) / whole if whole > 0 else 0.0


def information_beyond(choices_N: np.ndarray, group_N: np.ndarray, known_N: np.ndarray) -> float:
    """Returns I(e; g | x) / H(g | x): what the experts say of the group beyond what the token says; 0 if nothing is
    left to say.

    Args:
        choices_N: e, the experts.
        group_N: g, such as domains.
        known_N: x, such as token ids.
    """
    known = entropy(known_N)
    with_group = entropy(known_N, group_N)
    left = with_group - known
    gain = entropy(known_N, choices_N) + with_group - known - entropy(known_N, group_N, choices_N)
    return gain / left if left > 1e-9 else 0.0


def locality(first_N: np.ndarray, text_N: np.ndarray) -> float:
    """Returns how often neighboring tokens of a text have the same first expert; by chance it is Σ load²."""
    same_text = text_N[1:] == text_N[:-1]
    return float((first_N[1:] == first_N[:-1])[same_text].mean()) if same_text.any() else float("nan")


def agreement(left_PE: np.ndarray, right_PE: np.ndarray) -> np.ndarray:
    """Returns how much two texts use the same experts, 1 − ½ ‖u − v‖₁, of P pairs: (P,)."""
    import numpy as np

    agreement_P: np.ndarray = 1 - np.abs(left_PE - right_PE).sum(1) / 2
    return agreement_P
