"""Several processes that train one model: which is the first, what all agree on, and what they exchange.

Everything here does the obvious thing, and costs nothing, in a process that is alone.
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
_GRACE = 5.0  # seconds; torchrun looks ten times a second whether one of its processes has ended
_SHARD = "ACCELERATE_USE_FSDP"
# What `accelerate launch --use_fsdp` may ask for beside sharding, with the values that ask for what we do anyway.
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
    """Joins the other processes, where torchrun or `accelerate launch` has started several.

    Returns:
        whether the launcher asks for the weights to be shared out among them (`accelerate launch --use_fsdp`). That is
        done here and not by accelerate, which is not told of it; what else it was to do is named in a warning.

    Raises:
        SpectraError: DeepSpeed is to share them out, which the losses cannot follow.
    """
    shard = _asked_to_shard()
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return shard
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true"):
        raise SpectraError(
            "training under DeepSpeed does not work: some losses use weights of the model beside its forward pass, and "
            "a process would hold only a part of them. Launch with torchrun, or accelerate launch --multi_gpu; "
            "train.shard, train.cached_pass_tokens and train.gradient_checkpointing save memory."
        )
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())
    return shard


@functools.cache  # a second run in these processes is asked for it too
def _asked_to_shard() -> bool:
    shard = os.environ.pop(_SHARD, "").lower() in ("1", "true")
    others = [name for name, usual in _FSDP.items() if os.environ.get(name, "").lower() not in ("", *usual)]
    if shard and others and int(os.environ.get("RANK", "0")) == 0:
        told = ", ".join(f"{name}={os.environ[name]}" for name in others)
        print(f"spectra: warning: {told} changes nothing here (see train.shard)", file=sys.stderr, flush=True)
    return shard


def exit_now() -> None:
    """Ends a program that went well where there are several processes; returns where there is one.

    The interpreter is not taken down. Where weights are shared out it aborted a process while that was done, about one
    time in ten ("terminate called without an active exception", as when a C++ thread wants the interpreter's lock too
    late; destroying the process group first did not help), and torchrun called a finished run a failed one. After an
    error the launcher ends all processes.
    """
    if count() > 1:
        atexit._run_exitfuncs()  # trackers send their last lines there
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def count() -> int:
    """How many processes there are."""
    dist = sys.modules.get("torch.distributed")  # one that is not loaded, which takes seconds, has joined nobody
    return dist.get_world_size() if dist is not None and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    import torch.distributed as dist

    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


def wait_to_report() -> None:
    """Returns once what this process has to say is its own: to be called before it prints the error that ends it.

    Where all fail alike, the first one on each machine says so, and the launcher ends the others while they wait here.
    What fails in another one alone is said after the wait.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(_GRACE)


def barrier() -> None:
    """Waits for all."""
    import torch.distributed as dist

    if count() > 1:
        dist.barrier()


def _device() -> torch.device:
    import torch
    import torch.distributed as dist

    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")


def max_over_processes(number: float) -> float:
    """The largest of all processes' numbers."""
    import torch
    import torch.distributed as dist

    if count() == 1:
        return number
    value = torch.tensor(number, dtype=torch.float64, device=_device())
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return float(value)


def any_process(flag: bool) -> bool:
    """Whether it is true in any process."""
    return max_over_processes(float(flag)) > 0


def run_on_first(work: Callable[[], T]) -> T:
    """What `work` gives in the first process, in all of them; the others do not run it.

    Raises:
        SpectraError: the first process's, in all of them.
    """
    import torch.distributed as dist

    if count() == 1:
        return work()
    found: list[tuple[T | None, SpectraError | None]] = [(None, None)]
    if is_first():
        try:
            found = [(work(), None)]
        except SpectraError as error:
            found = [(None, error)]
    dist.broadcast_object_list(found, src=0, device=_device())
    value, problem = found[0]
    if problem is not None:
        raise problem
    return value  # type: ignore[return-value]


@contextlib.contextmanager
def first_before_others() -> Iterator[None]:
    """The block runs in the first process, then in the others: what it leaves in a cache they find there."""
    if not is_first():
        barrier()
    try:
        yield
    finally:
        if is_first():
            barrier()


def gather_counts(numbers: Sequence[int]) -> list[list[int]]:
    """The numbers of each process, by rank."""
    import torch
    import torch.distributed as dist

    if count() == 1:
        return [list(numbers)]
    mine = torch.tensor(numbers, dtype=torch.int64, device=_device())
    found = [torch.empty_like(mine) for _ in range(count())]
    dist.all_gather(found, mine)
    return [values.tolist() for values in found]


def gather_rows(mine: Tensor, rows: Sequence[int]) -> Tensor:
    """The rows of all processes, one process behind another; this one's keep their graph, the others' have none.

    Args:
        mine: (n, …), the same but for n in every process.
        rows: n of each process.
    """
    import torch
    import torch.distributed as dist

    padded = mine.new_zeros((max(rows), *mine.shape[1:]))
    padded[: len(mine)] = mine.detach()
    found = [torch.empty_like(padded) for _ in rows]
    dist.all_gather(found, padded)
    parts = [values[:size] for values, size in zip(found, rows, strict=True)]
    parts[rank()] = mine
    return torch.cat(parts)


def local_shard(value: Tensor) -> Tensor:
    """What this process holds of a tensor that is shared out (FSDP); any other tensor itself."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value


def average_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over all processes.

    What has no gradient in any process keeps none; the processes must agree on which those are. Gradients of weights
    that are shared out are means already: FSDP's backward pass leaves them so.
    """
    import torch
    import torch.distributed as dist

    if count() == 1:
        return
    from torch.distributed.tensor import DTensor

    held: list[Tensor] = []
    found = [weight.grad for weight in weights if weight.grad is not None]
    gradients = [gradient for gradient in found if not isinstance(gradient, DTensor)]
    for place, gradient in enumerate(gradients):
        held.append(gradient)
        full = sum(part.numel() for part in held) >= BUCKET
        if full or place + 1 == len(gradients) or gradients[place + 1].dtype != gradient.dtype:
            flat = torch.cat([part.flatten() for part in held])
            dist.all_reduce(flat)
            flat /= count()
            for part, mean in zip(held, flat.split([part.numel() for part in held]), strict=True):
                part.copy_(mean.view_as(part))
            held = []


def broadcast_weights(module: nn.Module) -> None:
    """Gives every process the first one's parameters and buffers."""
    import torch
    import torch.distributed as dist

    if count() == 1:
        return
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            sent = value.to(_device()).contiguous()
            dist.broadcast(sent, src=0)
            value.copy_(sent)
