"""Alarms about experts: one that gets no tokens, and one that gets all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spectra_nsa.training.monitor.alarm import Alarm, LogRow

WINDOW = 10  # logged rows over which loads are averaged
DEAD = 0.1  # of an equal share
COLLAPSED = 0.9  # of all tokens
_LOAD = "expert_load_"
_REMEDY = (
    "Raise loss.terms.router_balance.weight, lower train.router_lr_factor, or balance by a bias from the start "
    "(model.experts.balance_bias=true)."
)


def expert_alarms(rows: Sequence[LogRow]) -> Iterator[Alarm]:
    """Yields the alarms about the experts of the latest rows.

    Args:
        rows: training rows of `metrics.jsonl`, in order; those without loads count for nothing.
    """
    latest = [row for row in rows if any(key.startswith(_LOAD) for key in row)][-WINDOW:]
    if len(latest) < WINDOW:
        return
    loads: dict[int, dict[int, float]] = {}
    for key in latest[-1]:
        if key.startswith(_LOAD):
            layer, expert = map(int, key.removeprefix(_LOAD).split("_"))
            mean = sum(float(row.get(key, 0.0)) for row in latest) / len(latest)
            loads.setdefault(layer, {})[expert] = mean
    collapsed = [layer for layer, of in loads.items() if max(of.values()) > COLLAPSED]
    if collapsed:
        share = max(loads[collapsed[0]].values())
        message = f"one expert gets {share:.0%} of the choices in {_layers(collapsed)}."
        yield Alarm("expert collapse", message, _REMEDY)
        return
    dead = {
        layer: names
        for layer, of in loads.items()
        if (names := [expert for expert, load in of.items() if load < DEAD / len(of)])
    }
    if dead:
        count = sum(map(len, dead.values()))
        experts = "1 expert gets" if count == 1 else f"{count} experts get"
        message = f"{experts} less than a tenth of an equal share of the choices, in {_layers(list(dead))}."
        yield Alarm("dead experts", message, _REMEDY)


def _layers(numbers: Sequence[int]) -> str:
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
