"""A dense model as what is exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.export.graph import DenseGraph, choose_outputs
from spectra_nsa.models.encoding.outputs import check_truncation
from spectra_nsa.runtime import Runtime
from spectra_nsa.runtime.engines import Engine
from spectra_nsa.workflows.export.compare import compare, reference_of
from spectra_nsa.workflows.export.subject import Pairs, Subject, Wanted, check_length, text_facts


class DenseSubject(Subject):
    """See `Subject`.

    Args:
        model: opened; a fixed length becomes its `max_seq_length`.
        wanted: what the user asks for.
        pairs: of the check.
        samples: further texts.

    Raises:
        UsageError: an option does not fit the model.
        SpectraError: the model cannot be written as a graph.
    """

    main = "embedding"

    def __init__(self, model: Any, wanted: Wanted, pairs: Pairs, samples: Sequence[str]) -> None:
        spec = model.spec
        if spec.pooling_skips_prompt and any(model.prompts.values()):
            raise SpectraError("the model leaves its prompts out of pooling, which a graph of ids and mask cannot do.")
        if wanted.strongest is not None:
            raise UsageError("--top-k is for sparse encoders. To keep leading dimensions: --dim N.")
        check_truncation(wanted.dim, spec.projection_dim)
        check_length(wanted.length, model.max_seq_length)
        chosen, self.notes = choose_outputs(spec, wanted.outputs)
        self.dim, self.tokenizer, self.samples = wanted.dim, model.tokenizer, samples
        self.text = text_facts(model.tokenizer, model.max_seq_length, model.prompts, model.default_prompt_name)
        model.max_seq_length = wanted.length or model.max_seq_length  # longer texts are cut, in the reference too
        self.reference = reference_of(model, pairs, chosen)
        self.graph = DenseGraph(model.spectra.eval(), chosen, wanted.dim)
        self.facts = {
            "outputs": {name: self._width(name, value) for name, value in self.reference.values.items()},
            "dim": wanted.dim or spec.projection_dim,
            "normalize": spec.normalize or wanted.dim is not None,
        }

    def write_beside(self, folder: Path) -> None:
        """Writes nothing."""

    def open(self, folder: Path, name: str, engine: Engine | None) -> Runtime:
        """Opens an export."""
        return Runtime(folder, format=name, engine=engine)

    def compare(self, runtime: Any) -> dict[str, Any]:
        """See `compare.compare`."""
        return compare(runtime, self.reference, self.dim)

    def _width(self, name: str, value: Any) -> int:
        width = 0 if value.ndim == 1 else int(value.shape[1])
        return self.dim if self.dim is not None and name in ("embedding", "semantic") else width
