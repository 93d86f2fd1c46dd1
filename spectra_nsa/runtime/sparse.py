"""The sparse encoder of an exported folder: terms with weights, without torch and scipy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.inputs import text_list
from spectra_nsa.heads.kinds import SPARSE_OUTPUTS
from spectra_nsa.metrics.finite import check_finite
from spectra_nsa.models.prompts import Prompted
from spectra_nsa.models.sparse.query_side import QueryWeights
from spectra_nsa.runtime.engines import Engine, open_engine
from spectra_nsa.runtime.record import QUERIES, ExportFacts, read_export
from spectra_nsa.runtime.tokens import TextIds
from spectra_nsa.tokens.lengths import group_by_tokens

TOKENS = 512  # of a batch, with padding: the graph computes a logit of each term for each
CHUNK = 4096  # texts of a stream that are sorted by length together
Terms = tuple[NDArray[np.int64], NDArray[np.float32]]


class SparseRuntime(Prompted):
    """Encodes texts as terms with an exported graph, and queries of an inference-free model with its token weights.

    Args:
        folder: what `spectra export` wrote from a sparse encoder.
        format: its name, such as ``"onnx-int8"``; ``None`` for the most exact one in the folder.
        threads: ``None`` for one on each core that this process may use.
        engine: what runs the graph; ``None`` opens it with ONNX Runtime or OpenVINO.

    Attributes:
        facts: what the folder says of the format; `dim` is the number of terms.
        outputs: the names of the outputs.
        prompts, default_prompt_name, max_seq_length: as of the model.
        ids, engine: texts to token ids, and those to outputs.
        queries: the token weights of queries; ``None`` if queries pass the graph.

    Raises:
        UsageError: there is no such format in the folder.
        SpectraError: the folder is no export of a sparse encoder, or is damaged.
    """

    def __init__(
        self, folder: str | Path, *, format: str | None = None, threads: int | None = None, engine: Engine | None = None
    ) -> None:
        self.facts: ExportFacts = read_export(folder, format)
        self.outputs = tuple(self.facts.outputs)
        if not self.facts.sparse:
            raise SpectraError(f"{folder} is the export of a dense model: open it with spectra_nsa.runtime.Runtime.")
        self.prompts, self.default_prompt_name = dict(self.facts.text.prompts), self.facts.text.default_prompt_name
        self.max_seq_length = self.facts.length or self.facts.text.max_length
        self.ids = TextIds(self.facts.folder, self.facts.text, self.facts.length)
        self.engine = open_engine(self.facts, threads) if engine is None else engine
        queries = self.facts.folder / QUERIES
        self.queries = QueryWeights.load(queries) if queries.is_dir() else None

    def encode(
        self,
        inputs: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        max_active_dims: int | None = None,
    ) -> Any:
        """Encodes texts as documents are encoded.

        Args:
            inputs: texts, or one.
            prompt_name: of the words that are put before each text; ``None`` for the default prompt, if there is one.
            prompt: the words themselves; ``None`` for those of `prompt_name`.
            max_active_dims: the most terms of a text, the strongest ones; ``None`` for all that the graph gives.

        Returns:
            for each text the ids of its terms (K,) int64, in order, and their weights (K,) fp32. Of a single text one
            such pair.

        Raises:
            UsageError: there is no such prompt, or the limit is not positive.
        """
        _check_limit(max_active_dims)
        texts = [str(inputs)] if isinstance(inputs, str) else text_list(inputs)
        prompt = self._named_prompt(prompt_name) if prompt is None else prompt
        rows = self.ids([prompt + text for text in texts] if prompt else texts) if texts else []
        terms: list[Any] = [None] * len(rows)
        for positions in self._batches([len(row) for row in rows]):
            ids_BT, mask_BT = self.ids.padded([rows[at] for at in positions])
            for at, found in zip(positions, self.run(ids_BT, mask_BT, max_active_dims), strict=True):
                terms[at] = found
        return terms[0] if isinstance(inputs, str) else terms

    def encode_query(self, inputs: str | Sequence[str], **options: Any) -> Any:
        """Encodes queries: by the token weights of an inference-free model, else as `encode` with their prompt."""
        if self.queries is None:
            return super().encode_query(inputs, **options)
        _check_limit(limit := options.get("max_active_dims"))
        texts = [str(inputs)] if isinstance(inputs, str) else text_list(inputs)
        rows = [strongest(ids, weights, limit) for ids, weights in self.queries.rows(texts)]
        return rows[0] if isinstance(inputs, str) else rows

    def stream(self, texts: Iterable[str], *, chunk: int = CHUNK, **options: Any) -> Iterator[list[Terms]]:
        """Yields what `encode` returns for each `chunk` of texts in turn, so that neither texts nor terms pile up."""
        texts = iter(texts)
        while part := list(islice(texts, chunk)):
            yield self.encode(part, **options)

    def decode(self, terms: Any) -> Any:
        """Returns the terms of a text by name with their weights, the largest first; of a list of texts such a list."""
        if isinstance(terms, list):
            return [self.decode(one) for one in terms]
        names = {number: token for token, number in self.ids.backend.get_vocab(with_added_tokens=True).items()}
        pairs = sorted(zip(*(part.tolist() for part in terms), strict=True), key=lambda pair: (-pair[1], pair[0]))
        return [(names.get(number, ""), weight) for number, weight in pairs]

    def __repr__(self) -> str:
        facts = self.facts
        return f"SparseRuntime({str(facts.folder)!r}, format={facts.name!r}): {facts.dim:,} terms"

    def get_embedding_dimension(self) -> int:
        """Returns the number of terms."""
        return self.facts.dim

    def run(self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], limit: int | None = None) -> list[Terms]:
        """Returns the terms of token ids, see `encode`."""
        full, *short = SPARSE_OUTPUTS
        if limit is None or limit > self.facts.outputs[short[0]]:
            weights_BV = self.engine.run(ids_BT, mask_BT, [full])[full]
            check_finite(weights_BV, str(self.facts.file), "weights")
            places = [np.flatnonzero(row_V > 0) for row_V in weights_BV]
            rows = [(place, row_V[place]) for place, row_V in zip(places, weights_BV, strict=True)]
        else:
            values = self.engine.run(ids_BT, mask_BT, short)
            check_finite(values[short[1]], str(self.facts.file), "weights")
            rows = [(ids[row > 0], row[row > 0]) for ids, row in zip(*(values[name] for name in short), strict=True)]
        return [strongest(ids, weights.astype(np.float32, copy=False), limit) for ids, weights in rows]

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        if self.facts.length is not None:
            return [[at] for at in range(len(lengths))]
        return group_by_tokens(lengths, TOKENS)


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"max_active_dims must be at least 1, not {limit}.")


def strongest(ids: NDArray[Any], weights: NDArray[np.float32], limit: int | None) -> Terms:
    """Returns at most `limit` terms, the strongest, in the order of their ids."""
    kept = np.argsort(-weights, kind="stable")[:limit]
    kept = kept[np.argsort(ids[kept], kind="stable")]
    return ids[kept].astype(np.int64, copy=False), weights[kept]
