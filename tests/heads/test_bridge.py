"""Binary codes before anything has been fitted."""

from __future__ import annotations

import pytest
import torch

from spectra_nsa.heads.bridge import BITS, SPREAD, HashBridge


@pytest.mark.parametrize("entity", [0, 64, 384])
@pytest.mark.parametrize("semantic", [64, 384])
def test_directions_start_orthogonal_with_and_without_the_entity_vector(semantic: int, entity: int) -> None:
    weight = HashBridge(semantic + entity, semantic).project.weight.detach()
    assert weight.shape == (BITS, semantic + entity)
    for size, part in ((semantic, weight[:, :semantic]), (entity, weight[:, semantic:])):
        for start in range(0, BITS if size else 0, max(size, 1)):
            rows = part[start : start + size]
            assert torch.allclose(rows @ rows.T, SPREAD**2 * size * torch.eye(len(rows)), atol=1e-6)


def test_two_bridges_start_apart() -> None:
    assert not torch.equal(HashBridge(64, 32).project.weight, HashBridge(64, 32).project.weight)
