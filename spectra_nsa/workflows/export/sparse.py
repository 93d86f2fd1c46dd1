"""A sparse encoder as what is exported: documents pass a graph, queries too or have token weights of their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import UsageError
from spectra_nsa.export.sparse_graph import SparseGraph
from spectra_nsa.heads.kinds import SPARSE_OUTPUTS
from spectra_nsa.metrics.known_item import known_item_ndcg
from spectra_nsa.runtime import SparseRuntime
from spectra_nsa.runtime.engines import Engine
from spectra_nsa.runtime.record import QUERIES
from spectra_nsa.workflows.export.compare import ALONE, rounded
from spectra_nsa.workflows.export.shapes import MOST, batches, cosines
from spectra_nsa.workflows.export.subject import Pairs, Subject, Wanted, check_length, text_facts


class SparseSubject(Subject):
    """See `Subject`.

    Args:
        model: opened.
        wanted: what the user asks for.
        pairs: of the check.
        samples: further texts.

    Raises:
        UsageError: an option does not fit the model.
        SpectraError: the model cannot be written as a graph.
    """

    main = SPARSE_OUTPUTS[0]

    def __init__(self, model: Any, wanted: Wanted, pairs: Pairs, samples: Sequence[str]) -> None:
        if wanted.dim is not None:
            raise UsageError("a sparse encoder has no --dim. To list the strongest terms of a text: --top-k N.")
        if wanted.outputs is not None:
            raise UsageError(f"the graph of a sparse encoder always gives {', '.join(SPARSE_OUTPUTS)}: no --outputs.")
        self.graph = SparseGraph(model.eval(), *([] if wanted.strongest is None else [wanted.strongest])).eval()
        self.model, self.pairs, self.samples, self.notes = model, pairs, samples, _notes(self.graph, wanted)
        documents: Any = model.modules_of("document")[0]
        self.tokenizer = documents.tokenizer
        length = documents.max_seq_length or self.tokenizer.model_max_length
        check_length(wanted.length, length)
        self.text = text_facts(self.tokenizer, length, model.prompts, model.default_prompt_name)
        documents.max_seq_length = wanted.length or length
        width = self.graph.vocab_size
        widths = dict(zip(SPARSE_OUTPUTS, (width, self.graph.strongest, self.graph.strongest), strict=True))
        self.facts = {"outputs": widths, "dim": width, "normalize": False}
        self.seconds, self.vectors_TV = self._encode()

    def write_beside(self, folder: Path) -> None:
        """Writes the shape of the masked LM, and the token weights of queries if the model is inference-free."""
        self.model.masked_lm("document").config.to_json_file(folder / "config.json")
        if self.model.static("query") is not None:
            self.model.save_side("query", folder / QUERIES)

    def open(self, folder: Path, name: str, engine: Engine | None) -> SparseRuntime:
        """Opens an export."""
        return SparseRuntime(folder, format=name, engine=engine)

    def compare(self, runtime: Any) -> dict[str, Any]:
        """Measures how far an export's weights are from the model's; see `compare.compare`, and `terms` per text."""
        queries, documents = self._texts
        begin = time.process_time()
        terms = runtime.encode_document(documents)
        seconds = time.process_time() - begin
        found_TV = _dense([*runtime.encode_query(queries), *terms], self.graph.vocab_size)
        expected_TV, count = self.vectors_TV, len(queries)
        agreement = cosines(found_TV, expected_TV)
        return {
            "texts": len(found_TV),
            "outputs": {
                self.main: {"cosine_mean": rounded(agreement.mean()), "cosine_min": rounded(agreement.min())},
            },
            "terms": {
                "model": rounded((expected_TV > 0).sum(1).mean()),
                "export": rounded((found_TV > 0).sum(1).mean()),
            },
            "ndcg@10": {"pairs": count, "model": _ndcg(expected_TV, count), "export": _ndcg(found_TV, count)},
            "alone": _alone(runtime, documents[:ALONE], self.graph.vocab_size),
            "seconds": round(seconds, 3),
            "model_seconds": round(self.seconds, 3),
        }

    @property
    def _texts(self) -> tuple[list[str], list[str]]:
        return [query for query, _ in self.pairs], [document for _, document in self.pairs]

    def _encode(self) -> tuple[float, NDArray[np.float32]]:
        """Returns the CPU seconds of the documents, and the vectors of queries and documents (T, V)."""
        queries, documents = self._texts
        begin = time.process_time()
        rows = self.model.encode_csr(documents, "document", precision="fp32")
        seconds = time.process_time() - begin
        return seconds, np.concatenate([self.model.encode_csr(queries, "query").toarray(), rows.toarray()])


def _notes(graph: SparseGraph, wanted: Wanted) -> list[str]:
    if wanted.strongest is not None and graph.strongest < wanted.strongest:
        return [f"the model has at most {graph.strongest:,} terms per text: --top-k is {graph.strongest:,}"]
    return []


def _dense(rows: Any, width: int) -> NDArray[np.float32]:
    vectors_TV = np.zeros((len(rows), width), np.float32)
    for vector_V, (ids, weights) in zip(vectors_TV, rows, strict=True):
        vector_V[ids] = weights
    return vectors_TV


def _alone(runtime: SparseRuntime, texts: list[str], width: int) -> dict[str, float]:
    """Compares documents in batches with the same documents one by one."""
    rows = runtime.ids(texts)
    groups = batches(rows, MOST, runtime.facts.length)
    together_TV = _dense([terms for group in groups for terms in runtime.run(*runtime.ids.padded(group))], width)
    single_TV = _dense([runtime.run(*runtime.ids.padded([row]))[0] for row in rows], width)
    return {
        "cosine_min": rounded(cosines(together_TV, single_TV).min()),
        "largest_difference": rounded(np.abs(together_TV - single_TV).max()),
    }


def _ndcg(vectors_TV: NDArray[np.float32], queries: int) -> float:
    scores = vectors_TV[:queries] @ vectors_TV[queries:].T
    return round(float(known_item_ndcg(scores, np.arange(queries)).mean()), 4)
