"""Other programs that run the shards: Ray, and datatrove on Slurm. All of them must see the same folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from spectra_nsa.core.errors import missing_extra
from spectra_nsa.workflows.corpus.files import finished
from spectra_nsa.workflows.corpus.job import read_plan
from spectra_nsa.workflows.corpus.shards import ShardEncoder


class _RayWorker:
    """An actor of Ray Data: encodes the shards that it is given."""

    def __init__(self, folder: str, threads: int) -> None:
        self.encoder = ShardEncoder(folder, threads=threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        record = self.encoder(int(row["shard"]))
        return {"shard": record["shard"], "rows": record["rows"]}


def encode_with_ray(folder: Path, shards: Sequence[int], workers: int) -> Iterator[dict[str, Any]]:
    """Encodes shards with Ray Data, on the cluster that is connected or else on this machine.

    What is finished is known from the folder alone, so a job that was killed goes on at the missing shards, whatever
    Ray had committed.

    Args:
        folder: with a plan, on a file system that all machines share.
        shards: their numbers.
        workers: actors. A machine without a cluster gets one logical CPU more than that, for the reader; with fewer, a
            job would wait for ever.
    """
    try:
        import ray
    except ImportError as error:
        raise missing_extra("ray", "ray") from error

    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {} if address else {"num_cpus": workers + 2, "include_dashboard": False}
        ray.init(address=address, log_to_driver=False, **options)
    threads = max(1, (os.cpu_count() or 1) // workers)
    items = [{"shard": shard} for shard in shards]
    rows = ray.data.from_items(items, override_num_blocks=len(items)).map(
        cast(Any, _RayWorker),
        fn_constructor_args=(str(folder.absolute()), threads),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    yield from rows.iter_rows()


def datatrove_step(folder: str | Path) -> Any:
    """Returns a `PipelineStep` of datatrove that encodes the shards of its rank.

    Args:
        folder: with a plan (``spectra encode … --plan`` writes one), on a file system that all ranks share.
    """
    try:
        from datatrove.pipeline.base import PipelineStep
    except ImportError as error:
        raise missing_extra("datatrove", "datatrove") from error

    class EncodeShards(PipelineStep):
        name, type = "Spectra encode", "ENCODER"

        def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
            yield from data or ()
            encoder, job = ShardEncoder(folder), read_plan(folder)
            for shard in range(rank, job.shards, world_size):
                if not finished(encoder.folder, job, shard):
                    with self.track_time():
                        self.stat_update("rows", value=encoder(shard)["rows"])

    return EncodeShards()
