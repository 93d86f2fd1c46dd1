"""Several processes that train one model: their ranks, the values they agree on, and the tensors they exchange.

In a single process each function returns its input unchanged, at no cost.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from spectra_nsa.core.errors import SpectraError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")
_GRACE = 5.0  # seconds; torchrun checks ten times a second if one of its processes has ended
_SHARD = "ACCELERATE_USE_FSDP"
# Further options of `accelerate launch --use_fsdp`, with the values that match our own sharding.
_FSDP = {
    "FSDP_OFFLOAD_PARAMS": ("false",),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false",),
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": ("false",),
    "FSDP_FORWARD_PREFETCH": ("false",),
    "FSDP_SHARDING_STRATEGY": ("1", "full_shard"),
    "FSDP_RESHARD_AFTER_FORWARD": ("true", "full_shard"),
    "FSDP_IGNORED_MODULES": (),
}
BUCKET = 32_000_000  # numbers in one exchange of gradients: 128 MB in fp32


def connect() -> bool:
    """Joins the other processes if torchrun or `accelerate launch` has started several.

    Returns:
        whether the launcher asks for sharded weights (`accelerate launch --use_fsdp`). We shard them ourselves and hide
        the request from accelerate. A warning names options of the launcher that have no effect.

    Raises:
        SpectraError: the launcher asks for DeepSpeed, which the losses do not support.
    """
    shard = _launcher_shards()
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return shard
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true"):
        raise SpectraError(
            "training with DeepSpeed is not supported: some losses use weights of the model outside its forward pass, "
            "but DeepSpeed leaves each process only a part of them. Launch with torchrun or accelerate launch "
            "--multi_gpu. To save memory, set train.shard, train.cached_pass_tokens or train.gradient_checkpointing."
        )
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())
    return shard


@functools.cache  # a second run in the same processes gets the same answer
def _launcher_shards() -> bool:
    shard = os.environ.pop(_SHARD, "").lower() in ("1", "true")
    unused = [name for name, usual in _FSDP.items() if os.environ.get(name, "").lower() not in ("", *usual)]
    if shard and unused and int(os.environ.get("RANK", "0")) == 0:
        options = ", ".join(f"{name}={os.environ[name]}" for name in unused)
        print(f"spectra: warning: {options} has no effect here (see train.shard)", file=sys.stderr, flush=True)
    return shard


def exit_now() -> None:
    """Ends a successful program at once if there are several processes; returns if there is only one.

    Skips the shutdown of the interpreter. With sharded weights the shutdown aborted a process about one time in ten
    ("terminate called without an active exception", as when a C++ thread wants the interpreter's lock too late), and
    torchrun reported a finished run as failed. Destroying the process group first did not help. After an error the
    launcher ends all processes.
    """
    if count() > 1:
        atexit._run_exitfuncs()  # trackers send their last lines in exit functions
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def count() -> int:
    """Returns the number of processes."""
    dist = sys.modules.get("torch.distributed")  # importing it takes seconds; if nothing has, there is one process
    return dist.get_world_size() if dist is not None and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0."""
    import torch.distributed as dist

    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Returns whether this process is the one that writes files and prints."""
    return rank() == 0


def wait_to_report() -> None:
    """Waits before a process prints the error that ends it, so that an error of all processes is printed only once.

    If all processes fail alike, the first one on each machine prints the error, and the launcher ends the others while
    they wait here. If only another process fails, it prints its error after the wait.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(_GRACE)


def barrier() -> None:
    """Waits until all processes have arrived."""
    import torch.distributed as dist

    if count() > 1:
        dist.barrier()


def _device() -> torch.device:
    import torch
    import torch.distributed as dist

    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")


def max_over_processes(number: float) -> float:
    """Returns the largest of the processes' numbers."""
    import torch
    import torch.distributed as dist

    if count() == 1:
        return number
    value = torch.tensor(number, dtype=torch.float64, device=_device())
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return float(value)


def any_process(flag: bool) -> bool:
    """Returns whether the flag is true in any process."""
    return max_over_processes(float(flag)) > 0


def run_on_first(work: Callable[[], T]) -> T:
    """Runs `work` in the first process alone, and returns its result in all of them.

    Raises:
        SpectraError: `work` raised it in the first process; all processes raise it.
    """
    import torch.distributed as dist

    if count() == 1:
        return work()
    outcome: list[tuple[T | None, SpectraError | None]] = [(None, None)]
    if is_first():
        try:
            outcome = [(work(), None)]
        except SpectraError as error:
            outcome = [(None, error)]
    dist.broadcast_object_list(outcome, src=0, device=_device())
    value, problem = outcome[0]
    if problem is not None:
        raise problem
    return value  # type: ignore[return-value]


@contextlib.contextmanager
def first_before_others() -> Iterator[None]:
    """Runs the block in the first process, then in the others, which find its results in the cache."""
    if not is_first():
        barrier()
    try:
        yield
    finally:
        if is_first():
            barrier()


def gather_counts(numbers: Sequence[int]) -> list[list[int]]:
    """Returns the numbers of each process, by rank."""
    import torch
    import torch.distributed as dist

    if count() == 1:
        return [list(numbers)]
    local = torch.tensor(numbers, dtype=torch.int64, device=_device())
    gathered = [torch.empty_like(local) for _ in range(count())]
    dist.all_gather(gathered, local)
    return [values.tolist() for values in gathered]


def gather_rows(local: Tensor, rows: Sequence[int]) -> Tensor:
    """Concatenates the rows of all processes by rank. Gradients flow to the rows of this process only.

    Args:
        local: (n, …) of this process; only n may differ between processes.
        rows: n of each process.
    """
    import torch
    import torch.distributed as dist

    padded = local.new_zeros((max(rows), *local.shape[1:]))
    padded[: len(local)] = local.detach()
    gathered = [torch.empty_like(padded) for _ in rows]
    dist.all_gather(gathered, padded)
    parts = [values[:size] for values, size in zip(gathered, rows, strict=True)]
    parts[rank()] = local
    return torch.cat(parts)


def local_shard(value: Tensor) -> Tensor:
    """Returns the part of a sharded tensor (FSDP) that is in this process; any other tensor unchanged."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value


def average_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over all processes.

    Weights without a gradient are skipped; they must be the same ones in every process. So are sharded weights, whose
    gradients FSDP's backward pass has averaged already.
    """
    import torch
    import torch.distributed as dist

    if count() == 1:
        return
    from torch.distributed.tensor import DTensor

    bucket: list[Tensor] = []
    present = [weight.grad for weight in weights if weight.grad is not None]
    gradients = [gradient for gradient in present if not isinstance(gradient, DTensor)]
    for index, gradient in enumerate(gradients):
        bucket.append(gradient)
        full = sum(part.numel() for part in bucket) >= BUCKET
        if full or index + 1 == len(gradients) or gradients[index + 1].dtype != gradient.dtype:
            flat = torch.cat([part.flatten() for part in bucket])
            dist.all_reduce(flat)
            flat /= count()
            for part, mean in zip(bucket, flat.split([part.numel() for part in bucket]), strict=True):
                part.copy_(mean.view_as(part))
            bucket = []


def broadcast_weights(module: nn.Module) -> None:
    """Copies the first process's parameters and buffers to all processes."""
    import torch
    import torch.distributed as dist

    if count() == 1:
        return
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            sent = value.to(_device()).contiguous()
            dist.broadcast(sent, src=0)
            value.copy_(sent)
