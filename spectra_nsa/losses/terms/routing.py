"""Terms of experts: the balance of their load, and the size of the gate's logits.

Both are means over the layers with experts, over all tokens of a batch: of all columns, passes and processes. A loss of
each pass would force the tokens of a few texts to spread evenly over the experts (Qiu et al. 2025). Pooling the layers
before the product would let opposite imbalances of two layers cancel.

Legend: L layers with experts, E experts.
"""

from __future__ import annotations

from torch import Tensor

from spectra_nsa.losses.terms.term import Term, TermBatch


def balance(load_LE: Tensor, probs_LE: Tensor) -> Tensor:
    """Computes mean_l E Σ_e f_e P_e (Fedus et al. 2022, Switch, eq. 4): 1 if balanced, E if one expert has everything.

    Args:
        load_LE: how often each expert was chosen; f is its share. No gradient.
        probs_LE: the gate, summed over the tokens; P is its share.
    """
    share_LE = load_LE / load_LE.sum(-1, keepdim=True).clamp_min(1e-9)
    gate_LE = probs_LE / probs_LE.detach().sum(-1, keepdim=True).clamp_min(1e-9)
    return load_LE.shape[-1] * (share_LE * gate_LE).sum(-1).mean()


def router_z(square_L: Tensor, choices_L: Tensor) -> Tensor:
    """Computes mean_l mean_t (log Σ_e exp z_te)² (Zoph et al. 2022, ST-MoE, eq. 5).

    Args:
        square_L: the squares, summed over the tokens.
        choices_L: the number of tokens, or of texts if each text has one choice.
    """
    return (square_L / choices_L.clamp_min(1)).mean()


def _balance(batch: TermBatch) -> Tensor:
    load_LE = batch.texts("router_load").sum(0) if batch.load is None else batch.load
    return balance(load_LE, batch.texts("router_probs").sum(0))


def _router_z(batch: TermBatch) -> Tensor:
    choices_L = batch.texts("router_probs").detach().sum((0, 2))
    return router_z(batch.texts("router_square").sum(0), choices_L)


TERMS = (
    Term("router_balance", ("router_load", "router_probs"), _balance),
    Term("router_z", ("router_square", "router_probs"), _router_z),
)
