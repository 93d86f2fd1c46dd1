"""The unit of work: one shard, from texts to files. It can be repeated, and depends on nothing but the plan."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.files import atomic_write, expand_user
from spectra_nsa.workflows.corpus.files import Arrays, convert, finished, write_shard
from spectra_nsa.workflows.corpus.job import VOCABULARY, CorpusJob, read_plan
from spectra_nsa.workflows.corpus.texts import CorpusTexts, open_texts


class ShardEncoder:
    """Encodes shards of a folder; the model and the texts are opened once, at the first shard.

    Args:
        folder: with a plan.
        device: ``"cpu"``, ``"cuda:0"``, …; ``None`` for the GPU if there is one.
        threads: of torch; ``None`` leaves the default.

    Attributes:
        job: the plan.
    """

    def __init__(self, folder: str | Path, *, device: str | None = None, threads: int | None = None) -> None:
        self.folder, self.device, self.threads = expand_user(folder), device, threads
        self.job: CorpusJob = read_plan(self.folder)
        self._model: Any = None
        self._texts: CorpusTexts | None = None

    def __call__(self, shard: int, *, label: str | None = None) -> dict[str, Any]:
        """Encodes a shard, unless it is there already.

        Args:
            shard: its number.
            label: words before a progress bar; ``None`` for none.

        Returns:
            its record, with `done` false if it was there.

        Raises:
            SpectraError: the model or the texts are not those of the plan, or vectors are not finite.
        """
        if finished(self.folder, self.job, shard):
            return {"shard": shard, "rows": len(self.job.range(shard)), "done": False}
        start = time.perf_counter()
        self._open()
        assert self._texts is not None
        texts, records = self._texts.rows(self.job.range(shard))
        arrays = self._encode(texts, label)
        seconds = round(time.perf_counter() - start, 2)
        return write_shard(self.folder, self.job, shard, arrays, records, seconds=seconds) | {"done": True}

    def _open(self) -> None:
        if self._model is not None:
            return
        import torch

        from spectra_nsa.workflows.corpus.model import open_for_job

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        self._texts = open_texts(self.job)
        self._model = open_for_job(self.job, self.device)

    def _encode(self, texts: list[str], label: str | None) -> Arrays:
        from spectra_nsa.metrics.finite import check_finite

        job = self.job
        if job.dtype == "sparse":
            rows = self._model.encode_csr(texts, job.role, max_active_dims=job.active, precision=job.precision)
            check_finite(rows.data, job.model)
            self._write_vocabulary(rows.shape[1])
            shape, kind = np.array(rows.shape), np.array(b"csr")
            return {"data": rows.data, "indices": rows.indices, "indptr": rows.indptr, "shape": shape, "format": kind}
        from spectra_nsa.models.encoding.roles import encode_role

        options = {"outputs": job.outputs, "truncate_dim": job.dim, "show_progress_bar": label is not None}
        arrays = encode_role(self._model, texts, job.role, precision=job.precision, **options)
        for array in arrays.values():
            check_finite(array, job.model)
        return convert(arrays, job.dtype)

    def _write_vocabulary(self, width: int) -> None:
        """Writes the terms by id, once."""
        import json

        if not (self.folder / VOCABULARY).is_file():
            names = {number: token for token, number in self._model.tokenizer.get_vocab().items()}
            with atomic_write(self.folder / VOCABULARY) as file:
                json.dump([names.get(number, "") for number in range(width)], file)
