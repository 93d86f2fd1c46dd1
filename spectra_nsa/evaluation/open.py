"""The system that a user names: a model folder, a Hub name, or BM25."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import expand_user
from spectra_nsa.evaluation.systems import DenseSystem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spectra_nsa.evaluation.hybrid import HybridSystem
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder

SPLADE = "splade:"


def open_system(
    name_or_folder: str | Path,
    *,
    dim: int | None = None,
    query_active: int | None = None,
    document_active: int | None = None,
    precision: str = "fp32",
) -> System:
    """Opens a system to measure.

    Args:
        name_or_folder: ``"bm25"``; the folder of a saved model, ours or any sentence-transformers one, dense or sparse;
            or a Hub name. ``splade:NAME`` for a masked LM with SPLADE pooling, untrained: a folder, a Hub name, or a
            short name such as ``tiny``.
        dim: use only this many leading dimensions of a dense model; ``None`` uses all.
        query_active: keep only this many largest weights of each query of a sparse encoder; ``None`` keeps all.
        document_active: the same for documents.
        precision: the number format of a model, as in `DenseSystem`. Ignored for ``"bm25"``.

    Raises:
        SpectraError: it does not exist or cannot be opened.
        UsageError: an option belongs to another kind of model.
    """
    from spectra_nsa.models.open import DENSE, find_model, open_model

    if str(name_or_folder) == "bm25":
        from spectra_nsa.evaluation.bm25 import BM25System

        return BM25System()
    if str(name_or_folder).startswith(SPLADE):
        files, kind, name = None, "sparse", str(name_or_folder)
    else:
        files = find_model(name_or_folder, accept=(*DENSE, "sparse"))
        kind, name = files.kind, _short_name(name_or_folder)
    limits = (query_active, document_active)
    if kind == "sparse":
        if dim is not None:
            raise UsageError(f"{name} is a sparse encoder: use --query-active and --document-active instead of --dim.")
        from spectra_nsa.evaluation.sparse.system import SparseSystem

        suffix = "" if limits == (None, None) else f"@{query_active or 'all'},{document_active or 'all'}"
        return SparseSystem(
            name + suffix,
            open_splade(name.removeprefix(SPLADE)) if files is None else open_model(files, convert=False),
            query_active=query_active,
            document_active=document_active,
            precision=precision,
        )
    if limits != (None, None):
        raise UsageError(f"{name} is a dense model: use --dim instead of --query-active and --document-active.")
    assert files is not None
    model = open_model(files, convert=False)
    return DenseSystem(name if dim is None else f"{name}@{dim}", model, dim=dim, precision=precision)


def open_splade(name: str) -> SpectraSparseEncoder:
    """Opens a masked LM as the sparse encoder that a training would start from.

    Raises:
        SpectraError: there is no such checkpoint, or it has no masked-LM head.
    """
    from spectra_nsa.core.console import say_loading
    from spectra_nsa.models.sparse.build import has_masked_lm_head, splade_from
    from spectra_nsa.models.sparse.names import sparse_start

    folder, origin = sparse_start(name)
    if not has_masked_lm_head(folder):
        raise SpectraError(
            f"{SPLADE}{name}: {folder} has no masked-LM head. Name a masked LM, or train a sparse encoder from it: "
            "spectra train sparse.head=closed_form."
        )
    say_loading(origin)
    return splade_from(folder)


def open_hybrid(name: str, opened: Mapping[str, System], *, precision: str = "fp32") -> HybridSystem:
    """Opens a hybrid system.

    Args:
        name: ``hybrid:A+B`` with two or more names as in `open_system`, or ``hybrid:0.7*A+0.3*B`` with weights.
        opened: systems that are open already, by name.
        precision: of the others, see `open_system`.

    Raises:
        UsageError: the name is of another form, or only some parts have weights.
        SpectraError: a part does not exist or cannot be opened.
    """
    from spectra_nsa.evaluation.hybrid import PREFIX, HybridSystem
    from spectra_nsa.index.hybrid import Fusion

    parts: list[System] = []
    weights: dict[str, float] = {}
    for part in name.removeprefix(PREFIX).split("+"):
        weight, star, system_name = part.partition("*")
        system_name = system_name if star else part
        if not system_name:
            raise UsageError(f"{name}: a hybrid system is hybrid:A+B, or hybrid:0.7*A+0.3*B with weights.")
        parts.append(opened.get(system_name) or open_system(system_name, precision=precision))
        if star:
            weights[parts[-1].name] = _weight(weight, name)
    if weights and len(weights) < len(parts):
        raise UsageError(f"{name}: give every part a weight, or none.")
    return HybridSystem(parts, Fusion(method="weighted", weights=weights) if weights else None)


def _weight(text: str, name: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 < weight < float("inf"):
        raise UsageError(f"{name}: the weight {text!r} is not a number above 0.")
    return weight


def _short_name(name_or_folder: str | Path) -> str:
    """Returns a Hub name unchanged, and a folder's last part; for ``runs/NAME/model``, ``NAME/model``."""
    path = expand_user(name_or_folder)
    if not path.is_dir():
        return str(name_or_folder)
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name in ("model", "final", "best") else path.name
