"""The time budget of the quickstart."""

from __future__ import annotations

import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.workflows.quickstart.budget import TimeBudget


@pytest.mark.parametrize(("from_scratch", "least"), [(False, 2), (True, 4)])
def test_a_budget_that_can_never_suffice_is_refused_at_once(from_scratch: bool, least: int) -> None:
    with pytest.raises(SpectraError, match=rf"take at least 30 s.* Try --minutes {least}\."):
        TimeBudget(least - 1).training_seconds(None, from_scratch=from_scratch)
    assert TimeBudget(least).training_seconds(None, from_scratch=from_scratch) > 0
    assert TimeBudget(least).training_seconds(1.0, from_scratch=from_scratch) > 0
