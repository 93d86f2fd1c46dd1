"""Token importance: the terms of chosen texts with their weights, and the input tokens that they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spectra_nsa.evaluation.outcome import TaskOutcome, UnsuitableSystem, mean_result
from spectra_nsa.evaluation.sparse.attribution import Attribution, attribute
from spectra_nsa.evaluation.sparse.system import SparseSystem
from spectra_nsa.report.panels import BarsPanel, Panel, TextPanel
from spectra_nsa.report.svg import Bar

if TYPE_CHECKING:
    from spectra_nsa.evaluation.sources import Sides
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference

TEXTS = 6  # of each side
_TERMS = 24  # bars of one text
_LABEL = 60  # characters
_TITLE = "Token importance"
_HOVER = 4  # terms named when the pointer is on a token


class TokenImportanceTask:
    """Shows the first texts of each side: their terms, and which of them the text does not contain (expansions)."""

    kind = "token-importance"

    def __init__(self, sides: Sides) -> None:
        """Initializes the task with distinct queries and documents; the first six of each are shown."""
        self.name = sides.name
        self._texts = [("document", text) for text in sides.documents[:TEXTS]]
        if sides.queries != sides.documents:
            self._texts = [*(("query", text) for text in sides.queries[:TEXTS]), *self._texts]

    def run(self, system: System) -> TaskOutcome:
        """Encodes the texts and attributes their weights to their tokens."""
        if not isinstance(system, SparseSystem):
            raise UnsuitableSystem(f"{system.name} is no sparse encoder, but token-importance needs one")
        shown = []
        for role, text in self._texts:
            rows = system.encode_queries([text]) if role == "query" else system.encode_documents([text])
            found = attribute(system.model, text, role, rows.toarray()[0])
            if found is None:
                raise UnsuitableSystem(f"{system.name} has dimensions that are no terms of a vocabulary")
            shown.append((role, text, found))
        values = {"terms": [], "expansion_terms": [], "expansion_share": []}  # type: dict[str, list[float]]
        for _, _, found in shown:
            values["terms"].append(len(found.terms))
            values["expansion_terms"].append(float((~found.own).sum()))
            values["expansion_share"].append(float(found.weights[~found.own].sum() / (found.weights.sum() or 1)))
        return self._outcome(system, values, shown)

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Returns nothing: more or fewer expansions are neither better nor worse."""
        return {}

    def _outcome(
        self, system: SparseSystem, values: dict[str, list[float]], shown: list[tuple[str, str, Attribution]]
    ) -> TaskOutcome:
        import numpy as np

        panels: list[Panel] = []
        details = []
        for role, text, found in shown:
            terms = _terms(system, found)
            label = f"{role}: {' '.join(text.split())}"
            label = label if len(label) <= _LABEL else label[:_LABEL].rstrip() + " …"
            panels.append(TextPanel(bars=_bars(label, terms), pieces=_pieces(found, terms)))
            tokens = [
                {"token": token, "start": start, "end": end, "weight": float(heat)}
                for token, (start, end), heat in zip(found.tokens, found.spans, found.heat, strict=True)
            ]
            details.append({"role": role, "text": text, "input": found.text, "terms": terms, "tokens": tokens})
        results = [
            mean_result(kind=self.kind, name=self.name, system=system.name, metric=metric, values=np.array(numbers))
            for metric, numbers in values.items()
        ]
        return TaskOutcome(results=results, panels=panels, details={"texts": details})


def _bars(label: str, terms: list[dict[str, Any]]) -> BarsPanel:
    bars = [
        Bar(name=term["term"], value=term["weight"], marked=term["expansion"], title=f"from {term['from']}")
        for term in terms[:_TERMS]
    ]
    names = ("in the text", "expansion")
    return BarsPanel(
        title=_TITLE, label=label, bars=bars, x_label="weight", names=names, sign="+", columns=("term", "token")
    )


def _terms(system: SparseSystem, found: Attribution) -> list[dict[str, Any]]:
    names = system.term_names(found.terms.tolist()) or []
    return [
        {
            "term": name,
            "weight": round(float(weight), 6),
            "expansion": not own,
            "from": found.tokens[source],
            "position": int(source),
        }
        for name, weight, own, source in zip(names, found.weights, found.own, found.sources, strict=True)
    ]


def _pieces(found: Attribution, terms: list[dict[str, Any]]) -> list[tuple[str, float, str]]:
    """Returns the text in pieces with the weight that each token gives; tokens without a place come first."""
    pieces: list[tuple[str, float, str]] = []
    end = 0
    for at, (token, (start, stop), heat) in enumerate(zip(found.tokens, found.spans, found.heat, strict=True)):
        given = [term for term in terms if term["position"] == at][:_HOVER]
        hover = f"{token} {heat:.2f}: " + ", ".join(f"{term['term']} {term['weight']:.2f}" for term in given)
        if start == stop:
            pieces += [(token + " ", float(heat), hover)] if heat > 0 else []
            continue
        if start > end:
            pieces.append((found.text[end:start], 0.0, ""))
        pieces.append((found.text[max(start, end) : stop], float(heat), hover))
        end = max(end, stop)
    return [*pieces, (found.text[end:], 0.0, "")] if end < len(found.text) else pieces
