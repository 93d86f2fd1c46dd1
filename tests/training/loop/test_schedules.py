"""A schedule over time: warm-up, and a decay that ends at the deadline."""

from __future__ import annotations

import pytest
import torch

from spectra_nsa.training.loop import schedules as budget


@pytest.mark.parametrize(("seconds_a_step", "steps_taken"), [(0.1, 100), (2.0, 20)], ids=["steps end", "time ends"])
def test_the_rate_rises_and_falls_to_zero(
    monkeypatch: pytest.MonkeyPatch, seconds_a_step: float, steps_taken: int
) -> None:
    now = 50.0
    monkeypatch.setattr(budget.time, "monotonic", lambda: now)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = budget.budgeted_schedule(optimizer, steps=100, warmup=10, deadline=90.0)
    rates = []
    for _ in range(steps_taken):
        rates.append(schedule.get_last_lr()[0])
        now += seconds_a_step
        optimizer.step()
        schedule.step()
    peak = rates.index(max(rates))
    assert rates[0] == 0 and max(rates) == pytest.approx(1, abs=0.06)
    assert peak == pytest.approx(steps_taken / 10, abs=1)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert schedule.get_last_lr()[0] == pytest.approx(0, abs=1e-9)
