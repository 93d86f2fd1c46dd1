"""Search of dense vectors on the GPU, if there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spectra_nsa.index.topk import search_group

if TYPE_CHECKING:
    from spectra_nsa.index.topk import Floats, GroupSearch, IndexPairs, Ints


def group_search() -> GroupSearch:
    """Returns the fastest search of a group of dense documents on this machine."""
    return search_group_by_torch if torch.cuda.is_available() else search_group


def search_group_by_torch(
    queries_BD: Floats, documents_ND: Floats, excluded: IndexPairs, k: int
) -> tuple[Floats, Ints, Floats]:
    """Does what `search_group` does for dense vectors, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scores_BN = torch.from_numpy(queries_BD).to(device) @ torch.from_numpy(documents_ND).to(device).T
    pairs = torch.from_numpy(excluded.query_P), torch.from_numpy(excluded.document_P)
    excluded_P = scores_BN[pairs]
    scores_BN[pairs] = -torch.inf
    scores_BK, index_BK = scores_BN.topk(k, dim=1, sorted=False)
    return scores_BK.cpu().numpy(), index_BK.cpu().numpy(), excluded_P.cpu().numpy()
