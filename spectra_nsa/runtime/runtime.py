"""The encoder of an exported folder: the same names, types and methods as a model, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.core.inputs import text_list
from spectra_nsa.heads.kinds import SHORTENED
from spectra_nsa.metrics.finite import check_finite
from spectra_nsa.models.prompts import Prompted
from spectra_nsa.runtime.engines import Engine, open_engine
from spectra_nsa.runtime.record import ExportFacts, read_export
from spectra_nsa.runtime.tokens import TextIds
from spectra_nsa.tokens.lengths import group_by_tokens

TOKENS = 2048  # of a batch, with padding: more do not run faster
CHUNK = 4096  # texts of a stream that are sorted by length together


class Runtime(Prompted):
    """Encodes texts with an exported graph, in batches of similar length.

    Args:
        folder: what `spectra export` wrote.
        format: its name, such as ``"onnx-int8"``; ``None`` for the most exact one in the folder.
        threads: ``None`` for one on each core that this process may use.
        tokens: the most tokens of a batch, with padding.
        precision: ``"bf16"`` computes the format ``"openvino"`` in 16 bits, which processors with AVX512-BF16 or AMX do
            faster; elsewhere it is slower. Other formats have the precision of their file.
        engine: what runs the graph; ``None`` opens it with ONNX Runtime or OpenVINO.

    Attributes:
        facts: what the folder says of the format.
        outputs: the names of the outputs.
        prompts, default_prompt_name, max_seq_length: as of the model.
        ids, engine: texts to token ids, and those to outputs.

    Raises:
        UsageError: there is no such format in the folder.
        SpectraError: the folder is no export, or is damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        format: str | None = None,
        threads: int | None = None,
        tokens: int = TOKENS,
        precision: str = "fp32",
        engine: Engine | None = None,
    ) -> None:
        self.facts: ExportFacts = read_export(folder, format)
        if self.facts.sparse:
            raise SpectraError(f"{folder} is the export of a sparse encoder: open it with SparseRuntime.")
        self.outputs = tuple(self.facts.outputs)
        self.prompts, self.default_prompt_name = dict(self.facts.text.prompts), self.facts.text.default_prompt_name
        self.max_seq_length = self.facts.length or self.facts.text.max_length
        self._tokens = tokens
        self.ids = TextIds(self.facts.folder, self.facts.text, self.facts.length)
        self.engine = open_engine(self.facts, threads, precision) if engine is None else engine

    def encode(
        self,
        inputs: str | Sequence[str],
        *,
        outputs: Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize_embeddings: bool = False,
        batch_size: int | None = None,
    ) -> Any:
        """Encodes texts.

        Args:
            inputs: texts, or one.
            outputs: names from `outputs`; ``None`` for `embedding` alone.
            prompt_name: of the words that are put before each text; ``None`` for the default prompt, if there is one.
            prompt: the words themselves; ``None`` for those of `prompt_name`.
            truncate_dim: cuts `embedding` and `semantic` to so many dimensions; ``None`` keeps all.
            normalize_embeddings: scales `embedding` to unit length if the model does not.
            batch_size: the most texts of a batch; ``None`` for the limit of tokens alone.

        Returns:
            `embedding`, (N, D) fp32, (D,) of a single text; with `outputs` a dictionary of arrays by name.

        Raises:
            UsageError: an output or prompt does not exist, or there are not so many dimensions.
        """
        if truncate_dim is not None and not 1 <= truncate_dim <= self.facts.dim:
            raise UsageError(
                f"truncate_dim must be from 1 to the model's {self.facts.dim} dimensions, not {truncate_dim}."
            )
        names = ("embedding",) if outputs is None else tuple(outputs)
        for name in names:
            if name not in self.facts.outputs:
                raise unknown_name("output", name, self.facts.outputs)
        texts = [str(inputs)] if isinstance(inputs, str) else text_list(inputs)
        prompt = self._named_prompt(prompt_name) if prompt is None else prompt
        arrays = self._encode([prompt + text for text in texts] if prompt else texts, names, batch_size)
        shorten = truncate_dim is not None
        for name in SHORTENED:
            if name not in arrays:
                continue
            arrays[name] = arrays[name][:, :truncate_dim]
            if self.facts.normalize or (shorten and outputs is not None):
                arrays[name] = _unit(arrays[name])  # which 16-bit floats are only nearly
        if outputs is None and normalize_embeddings:
            arrays["embedding"] = _unit(arrays["embedding"])
        if isinstance(inputs, str):
            arrays = {name: array[0] for name, array in arrays.items()}
        return arrays["embedding"] if outputs is None else arrays

    def stream(self, texts: Iterable[str], *, chunk: int = CHUNK, **options: Any) -> Iterator[Any]:
        """Yields what `encode` returns for each `chunk` of texts in turn, so that neither texts nor vectors pile up."""
        texts = iter(texts)
        while part := list(islice(texts, chunk)):
            yield self.encode(part, **options)

    @property
    def text_tokenizer(self) -> Any:
        """The tokenizer, of the library `tokenizers`."""
        return self.ids.backend

    def get_embedding_dimension(self) -> int:
        """Returns the width of `embedding`."""
        return self.facts.dim

    def _encode(self, texts: Sequence[str], names: Sequence[str], most: int | None) -> dict[str, NDArray[Any]]:
        """Returns the outputs of texts in their order."""
        rows = self.ids(texts) if texts else self.ids([""])
        arrays: dict[str, NDArray[Any]] = {}
        for positions in self._batches([len(row) for row in rows], most):
            values = self.engine.run(*self.ids.padded([rows[at] for at in positions]), names)
            for name, value in values.items():
                value = value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value
                check_finite(value, str(self.facts.file), f"outputs {name}")
                if name not in arrays:
                    arrays[name] = np.empty((len(rows), *value.shape[1:]), value.dtype)
                arrays[name][positions] = value
        return {name: array[: len(texts)] for name, array in arrays.items()}

    def _batches(self, lengths: Sequence[int], most: int | None) -> list[list[int]]:
        if self.facts.length is not None:
            return [[at] for at in range(len(lengths))]
        groups = group_by_tokens(lengths, self._tokens)
        if most is None:
            return groups
        return [group[at : at + most] for group in groups for at in range(0, len(group), most)]

    def __repr__(self) -> str:
        facts = self.facts
        return (
            f"Runtime({str(facts.folder)!r}, format={facts.name!r}): {facts.dim} dimensions, {', '.join(self.outputs)}"
        )


def _unit(vectors_ND: NDArray[Any]) -> NDArray[Any]:
    norms_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    unit: NDArray[Any] = vectors_ND / np.maximum(norms_N1, 1e-12)
    return unit
