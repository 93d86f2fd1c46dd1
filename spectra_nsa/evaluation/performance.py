"""Performance: the speed of encoding queries and documents, one at a time and in batches, and its memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from spectra_nsa.core.results import Result
from spectra_nsa.evaluation.outcome import TaskOutcome, UnsuitableSystem
from spectra_nsa.report.panels import HistogramPanel

if TYPE_CHECKING:
    from spectra_nsa.evaluation.sources import Sides
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference

BATCHED = 256  # texts of each side that are encoded in batches
SINGLE = 50  # texts of each side that are encoded one at a time
REPEATS = 5
_WARM_UP = 8  # texts encoded before the clock starts, one at a time; the first batch is encoded too
_VARIES = 0.2  # spread of the repeats, over their median, from which a note says so


@runtime_checkable
class Encodes(Protocol):
    """A system that encodes queries and documents, dense or sparse."""

    name: str

    def encode_queries(self, texts: Sequence[str]) -> Any:
        """Returns one vector per text."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> Any:
        """Returns one vector per text."""
        ...


class PerformanceTask:
    """Times the encoding of both sides on this machine.

    Throughput is that of the median of some passes over up to 256 texts in batches. Latency is that of single texts, 50
    of each side, each once per pass. Both come after a warm-up.
    """

    kind = "performance"

    def __init__(self, sides: Sides, *, repeats: int = REPEATS) -> None:
        """Initializes the task.

        Args:
            sides: the texts. If there are too many, those at equal distances are used.
            repeats: the number of passes.
        """
        self.name = sides.name
        self._sides = {"query": sides.queries, "document": sides.documents}
        self._repeats = repeats

    def run(self, system: System) -> TaskOutcome:
        """Times both sides."""
        if not isinstance(system, Encodes):
            raise UnsuitableSystem(f"{system.name} encodes no texts, but performance needs it")
        results, details, notes, latencies = [], {}, [], {}
        for side, encode in (("query", system.encode_queries), ("document", system.encode_documents)):
            timing = self._time(encode, self._sides[side])
            spread = timing.pop("spread")
            latencies[f"{side}, one at a time"] = timing["latencies_ms"]
            details[side] = timing
            if spread > _VARIES:
                notes.append(
                    f"{system.name}: the passes over the {side} texts of {self.name} differ by {spread:.0%}: something "
                    "else used the machine, so compare cpu_ms instead of times"
                )
            results += [
                Result(task=self.kind, name=self.name, system=system.name, metric=f"{side}_{name}", value=value, n=n)
                for name, value, n in _figures(timing)
            ]
        details["machine"] = {"cpus": os.cpu_count(), "threads": _threads(), "device": _device(system)}
        panel = HistogramPanel(title="Latency of one text", groups=latencies, x_label="ms")
        return TaskOutcome(results=results, panels=[panel], details=details, notes=notes)

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Returns nothing: the systems are timed one after the other, so nothing is paired."""
        return {}

    def _time(self, encode: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> dict[str, Any]:
        import numpy as np

        batched, single = _spaced(texts, BATCHED), _spaced(texts, SINGLE)
        for text in single[:_WARM_UP]:
            encode([text])
        before = _reset_peak()
        encode(batched)
        peak = _peak_mb()
        seconds, cpu, latencies = [], [], []
        for _ in range(self._repeats):
            start, start_cpu = time.perf_counter(), time.process_time()
            encode(batched)
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
            for text in single:
                start = time.perf_counter()
                encode([text])
                latencies.append(1000 * (time.perf_counter() - start))
        return {
            "texts": len(batched),
            "mean_characters": float(np.mean([len(text) for text in batched])),
            "seconds": seconds,
            "cpu_seconds": cpu,
            "latencies_ms": latencies,
            "memory_mb": None if before is None or peak is None else max(0.0, peak - before),
            "spread": (max(seconds) - min(seconds)) / float(np.median(seconds)),
        }


def _figures(timing: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Returns metric, value and number of units."""
    import numpy as np

    texts, latencies = timing["texts"], timing["latencies_ms"]
    figures = [
        ("texts_per_second", texts / float(np.median(timing["seconds"])), texts),
        ("cpu_ms", 1000 * float(np.median(timing["cpu_seconds"])) / texts, texts),
        ("latency_p50_ms", float(np.quantile(latencies, 0.5)), len(latencies)),
        ("latency_p95_ms", float(np.quantile(latencies, 0.95)), len(latencies)),
    ]
    return figures if timing["memory_mb"] is None else [*figures, ("memory_mb", timing["memory_mb"], texts)]


def _spaced(texts: Sequence[str], count: int) -> list[str]:
    """Returns all texts, or `count` of them at equal distances."""
    return [texts[at * len(texts) // count] for at in range(count)] if len(texts) > count else list(texts)


def _reset_peak() -> float | None:
    """Resets the peak of this process's memory and returns it, in MB (10⁶ bytes); ``None`` if the system cannot."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _peak_mb()
    return None


def _peak_mb() -> float | None:
    """Returns the largest resident size since the last reset, in MB; ``None`` if the system does not report it."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6
    return None


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _device(system: Any) -> str:
    return str(getattr(getattr(system, "model", None), "device", "cpu"))
