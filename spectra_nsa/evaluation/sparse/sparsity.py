"""What a sparse encoder's vectors cost an index: active dimensions, FLOPs, posting lengths, document frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from spectra_nsa.core.results import Result
from spectra_nsa.evaluation.outcome import TaskOutcome, UnsuitableSystem, mean_result
from spectra_nsa.evaluation.sparse.encoding import empty_texts
from spectra_nsa.report.panels import BarsPanel, CurvePanel, HistogramPanel
from spectra_nsa.report.svg import Bar

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

    from spectra_nsa.evaluation.sources import Sides
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference

_TOP = (10, 100)  # the longest posting lists whose share of all postings is reported
_HALF = 0.5
_SHOWN = 20  # terms
_CURVE = 60  # points


@runtime_checkable
class SparseRows(Protocol):
    """A system that ranks by the inner product of sparse rows, such as a sparse encoder or BM25."""

    name: str

    def sparse_rows(self, queries: Sequence[str], documents: Sequence[str]) -> tuple[csr_matrix, csr_matrix]:
        """Returns (Q, V) and (N, V) rows whose inner products are the scores."""
        ...

    def term_names(self, terms: Sequence[int]) -> list[str] | None:
        """Returns the names of some of the V dimensions; ``None`` if they have none."""
        ...


class SparsityTask:
    """Encodes queries and documents and describes the vectors and the inverted index that they need.

    Every document counts in a document frequency, so the figures belong to this collection.
    """

    kind = "sparsity"

    def __init__(self, sides: Sides) -> None:
        """Initializes the task with distinct queries and documents."""
        self.name = sides.name
        self._sides = sides

    def run(self, system: System) -> TaskOutcome:
        """Encodes both sides and counts."""
        from spectra_nsa.metrics import sparse

        if not isinstance(system, SparseRows):
            raise UnsuitableSystem(f"{system.name} has no sparse vectors, but sparsity needs them")
        queries, documents = system.sparse_rows(self._sides.queries, self._sides.documents)
        per_unit = {
            "query_active": sparse.active_dims(queries).astype(float),
            "document_active": sparse.active_dims(documents).astype(float),
            "flops": sparse.flops(queries, documents),
            "postings_per_query": sparse.postings_visited(queries, documents).astype(float),
        }
        frequencies = sparse.document_frequencies(documents)
        results = [
            mean_result(kind=self.kind, name=self.name, system=system.name, metric=metric, values=values)
            for metric, values in per_unit.items()
        ]
        figures = self._figures(per_unit, frequencies, queries.shape[1])
        for side, rows in (("query", queries), ("document", documents)):
            figures[f"{side}_empty"] = float(sum(empty_texts(rows))), rows.shape[0]
        results += [
            Result(task=self.kind, name=self.name, system=system.name, metric=metric, value=float(value), n=n)
            for metric, (value, n) in figures.items()
        ]
        quantiles = {name: sparse.quantiles(values) for name, values in per_unit.items()}
        top = self._top_terms(system, frequencies)
        return TaskOutcome(
            results=results,
            per_unit=per_unit,
            panels=self._panels(per_unit, frequencies, top),
            details={"quantiles": quantiles, "top_terms": top},
        )

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Returns nothing: more or fewer terms are neither better nor worse."""
        return {}

    def _figures(
        self, per_unit: dict[str, np.ndarray], frequencies: np.ndarray, terms: int
    ) -> dict[str, tuple[float, int]]:
        """Returns metric → value and number of units, for the figures that are not means over texts."""
        import numpy as np

        from spectra_nsa.metrics.sparse import top_share

        n = len(self._sides.documents)
        figures: dict[str, tuple[float, int]] = {}
        for side in ("query", "document"):
            active = per_unit[f"{side}_active"]
            figures[f"{side}_active_p95"] = float(np.quantile(active, 0.95)), len(active)
            figures[f"{side}_sparsity"] = 1 - active.mean() / max(1, terms), len(active)
        visited = per_unit["postings_per_query"]
        figures["postings_per_query_p95"] = float(np.quantile(visited, 0.95)), len(visited)
        figures["max_document_frequency"] = frequencies.max(initial=0) / n, n
        figures["terms_in_half"] = float((frequencies > _HALF * n).sum()), n
        figures["terms_used"] = float((frequencies > 0).sum()), n
        for count in _TOP:
            figures[f"postings_in_top_{count}"] = top_share(frequencies, count), n
        return figures

    def _top_terms(self, system: SparseRows, frequencies: np.ndarray) -> list[dict[str, Any]]:
        """Returns the terms in the most documents, with their share of the documents."""
        import numpy as np

        order = np.argsort(-frequencies, kind="stable")[:_SHOWN]
        order = order[frequencies[order] > 0]
        names = system.term_names(order.tolist()) or [f"#{term}" for term in order.tolist()]
        shares = (frequencies[order] / len(self._sides.documents)).tolist()
        return [{"term": name, "document_frequency": share} for name, share in zip(names, shares, strict=True)]

    def _panels(
        self, per_unit: dict[str, np.ndarray], frequencies: np.ndarray, top: Sequence[dict[str, Any]]
    ) -> list[HistogramPanel | CurvePanel | BarsPanel]:
        active = {"queries": per_unit["query_active"], "documents": per_unit["document_active"]}
        bars = [
            Bar(name=row["term"], value=row["document_frequency"], marked=row["document_frequency"] > _HALF)
            for row in top
        ]
        return [
            HistogramPanel(title="Active dimensions", groups=active, x_label="active dimensions"),
            CurvePanel(
                title="Document frequencies",
                points=_frequency_curve(frequencies, len(self._sides.documents)),
                x_label="rank of the term",
                log_x=True,
            ),
            BarsPanel(
                title="Terms in the most documents",
                bars=bars,
                x_label="share of the documents",
                names=("in at most half of the documents", "in more than half"),
            ),
        ]


def _frequency_curve(frequencies: np.ndarray, documents: int) -> list[tuple[float, float]]:
    """Returns (rank, share of the documents) of the terms in use, at ranks of about equal ratio."""
    import numpy as np

    ordered = np.sort(frequencies[frequencies > 0])[::-1] / documents
    if not len(ordered):
        return []
    ranks = np.unique(np.geomspace(1, len(ordered), _CURVE).round().astype(int))
    return [(float(rank), float(ordered[rank - 1])) for rank in ranks]
