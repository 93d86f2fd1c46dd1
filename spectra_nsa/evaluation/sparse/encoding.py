"""Sparse encoders of any make: texts to sparse rows in constant memory beside the result, and the modules they pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.metrics.finite import check_finite
from spectra_nsa.models.prompts import check_role

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_CHUNK = 8  # batches encoded at a time with a stock `SparseEncoder`, which holds a row of V numbers for each text


def encode_rows(
    model: Any,
    texts: Sequence[str],
    role: str,
    *,
    name: str,
    batch_size: int = 32,
    max_active_dims: int | None = None,
    precision: str = "fp32",
    progress: bool = False,
) -> csr_matrix:
    """Encodes texts in their role: (N, V) float32 rows with sorted indices.

    Args:
        model: a `SpectraSparseEncoder`, or a stock `SparseEncoder`, whose vectors are taken as they are.
        texts: N texts.
        role: ``"query"`` or ``"document"``, which selects prompt and route.
        name: the system's name, for errors.
        batch_size: texts per forward pass.
        max_active_dims: keep this many largest weights of each text; ``None`` for the model's own limit, if any.
        precision: see `resolve_precision`.
        progress: whether to show a progress bar.

    Raises:
        UsageError: there is no such role.
        SpectraError: a weight is not finite.
    """
    check_role(role)
    options: dict[str, Any] = {"batch_size": batch_size, "max_active_dims": max_active_dims, "precision": precision}
    own = getattr(model, "encode_csr", None)
    rows = _stock_rows(model, texts, role, **options) if own is None else own(texts, role, **options, progress=progress)
    check_finite(rows.data, name, "weights")
    return rows


def _stock_rows(model: Any, texts: Sequence[str], role: str, **options: Any) -> csr_matrix:
    import numpy as np
    from scipy.sparse import csr_matrix, vstack

    from spectra_nsa.models.encoding.loop import batches
    from spectra_nsa.models.encoding.roles import encode_role

    blocks, order = [], []
    for positions, chunk in batches(texts, _CHUNK * options["batch_size"]):
        vectors = encode_role(model, chunk, role, convert_to_sparse_tensor=False, save_to_cpu=True, **options)
        blocks.append(csr_matrix(vectors.float().numpy()))
        order.append(positions)
    if not blocks:
        return csr_matrix((0, model.get_embedding_dimension() or 0), dtype=np.float32)
    return vstack(blocks, format="csr")[np.argsort(np.concatenate(order))]


def modules_of(model: Any, role: str) -> list[Any]:
    """Returns the modules that texts of a role pass. Raises `UsageError` if there is no such role."""
    check_role(role)
    from sentence_transformers.base.modules import Router

    first: Any = model[0]
    if not isinstance(first, Router):
        return list(model)
    keys = [(role, "text"), (role, None), (None, "text"), (None, None)]
    named = next((first.route_mappings[key] for key in keys if key in first.route_mappings), role)
    routes: Any = first.sub_modules
    return [*routes[named if named in routes else first.default_route], *list(model)[1:]]


def has_terms(model: Any) -> bool:
    """Returns whether the dimensions of a sparse encoder are the terms of its vocabulary, in both roles."""
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    for role in ("query", "document"):
        modules = modules_of(model, role)
        kinds = [SparseStaticEmbedding] if len(modules) == 1 else [Transformer, SpladePooling]
        if len(modules) != len(kinds) or not all(map(isinstance, modules, kinds)):
            return False
    return True


def empty_texts(rows: csr_matrix) -> tuple[int, int]:
    """Returns how many texts have no term, and how many had none until their strongest token was put in its place.

    Our encoders do the latter, with a weight that no term has otherwise.
    """
    import numpy as np

    from spectra_nsa.models.sparse.query_side import FALLBACK_WEIGHT

    terms = np.diff(rows.indptr)
    single = rows.data[rows.indptr[:-1][terms == 1]]
    return int((terms == 0).sum()), int(np.isclose(single, FALLBACK_WEIGHT, rtol=5e-3, atol=0).sum())  # bf16 rounds
