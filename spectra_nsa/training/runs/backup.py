"""Backups of a run, copied during training to a folder (a mounted drive) or any address that fsspec knows.

A copy is a unit, `TO/RUN/step-N` or `TO/RUN/model`: files under their names in the run's folder, and a manifest that
is written last. A unit without a manifest does not count. Files are written under `TO/RUN/.incoming`, read back,
compared by SHA-256, and then renamed.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectra_nsa.config.sections import BackupSection
from spectra_nsa.core.checksums import MANIFEST
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.training.runs.backup_store import Store, Unit, checkpoint_unit, model_unit
from spectra_nsa.training.runs.checkpoints import checkpoints_of

ATTEMPTS = 6
FIRST_WAIT = 1.0  # seconds; doubles with each attempt
LONGEST_WAIT = 60.0


@dataclass
class Tally:
    """What became of the copies.

    Attributes:
        copied: units that are complete at the destination.
        failures: attempts that failed; each printed a warning.
        lost: units given up after the last attempt, and not copied later.
        superseded: checkpoints that were not copied because a later one was ready first.
    """

    copied: list[str] = field(default_factory=list)
    failures: int = 0
    lost: list[str] = field(default_factory=list)
    superseded: int = 0


class Backup:
    """Copies units in a background thread, whose errors never reach the training.

    Args:
        store: the destination.
        folder: the run's folder.
        every: checkpoints between two copies.
        keep: how many checkpoints stay at the destination, beside the best one.
        wait: the most seconds that `finish` waits.
        first_wait: seconds before the second attempt.
    """

    def __init__(
        self, store: Store, folder: Path, *, every: int, keep: int, wait: float, first_wait: float = FIRST_WAIT
    ) -> None:
        self.store, self.folder = store, folder
        self.every, self.keep, self.wait, self.first_wait = every, keep, wait, first_wait
        self.tally = Tally()
        self._seen = 0
        self._latest = ""
        self._queue: list[Unit] = []
        self._at_work: Unit | None = None
        self._change = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def pending(self) -> list[Path]:
        """Returns the checkpoints that are being copied or wait for it: they must not be deleted."""
        with self._change:
            units = [*self._queue, *([self._at_work] if self._at_work else [])]
        return [unit.source for unit in units if unit.source is not None]

    def saved(self, checkpoint: Path, best: Path | None) -> None:
        """Takes note of a new checkpoint; every `every`-th one is copied, together with the best so far."""
        self._seen += 1
        if self._seen % self.every:
            return
        try:
            self.copy(checkpoint, best)
        except Exception as error:  # as in `_work`
            self._give_up(checkpoint.name, error)

    def copy(self, checkpoint: Path, best: Path | None) -> None:
        """Queues a checkpoint and the best one, in place of those that still wait."""
        checkpoints = [checkpoint, *([best] if best is not None and best != checkpoint else [])]
        units = [checkpoint_unit(self.folder, path) for path in reversed(checkpoints)]
        with self._change:
            self._latest = checkpoint.name
            self.tally.superseded += sum(waiting.name not in {unit.name for unit in units} for waiting in self._queue)
            self._queue = units
            self._change.notify_all()
        self._start()

    def finish(self, best: Path | None, *, model: bool) -> Tally:
        """Copies the last checkpoint and `model/`, and waits for the copies, but at most `wait` seconds.

        Args:
            best: the best checkpoint; ``None`` without one.
            model: whether `model/` has been written.
        """
        try:
            for checkpoint in checkpoints_of(self.folder)[-1:]:
                self.copy(checkpoint, best)
            if model:
                with self._change:
                    self._queue.append(model_unit(self.folder))
                    self._change.notify_all()
                self._start()
        except Exception as error:  # as in `_work`
            self._give_up("the end of the run", error)
        deadline = time.monotonic() + self.wait
        with self._change:
            while (self._queue or self._at_work) and (left := deadline - time.monotonic()) > 0:
                self._change.wait(left)
            undone = [unit.name for unit in [*([self._at_work] if self._at_work else []), *self._queue]]
            self._queue = []
            self._stopping.set()
            self._change.notify_all()
        if undone:
            _warn(f"not finished after {self.wait:.0f} s: {', '.join(undone)}; {self.folder} itself is complete")
            self.tally.lost += [name for name in undone if name not in self.tally.lost]
        return self.tally

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="backup", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        if sys.platform == "linux":  # where threads have priorities: the training goes first
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while True:
            with self._change:
                while not self._queue and not self._stopping.is_set():
                    self._change.wait()
                if self._stopping.is_set():
                    return
                unit = self._at_work = self._queue.pop(0)
            try:
                self._copy_unit(unit)
            except Exception as error:  # whatever a backend raises: the training is worth more than its copy
                self._give_up(unit.name, error)
            finally:
                with self._change:
                    self._at_work = None
                    self._change.notify_all()

    def _give_up(self, name: str, error: Exception) -> None:
        if name not in self.tally.lost:
            self.tally.lost.append(name)
        _warn(f"{name} was not copied to {self.store.address}: {_first_line(error)}")

    def _copy_unit(self, unit: Unit) -> None:
        if self._retry(unit.name, lambda: self.store.holds(unit)):
            return
        self._retry(unit.name, lambda: self.store.begin(unit))
        for name in unit.files:
            self._retry(f"{unit.name}/{name}", lambda name=name: self.store.send(unit, name))  # type: ignore[misc]
        self._retry(f"{unit.name}/{MANIFEST}", lambda: self.store.commit(unit))
        self.tally.copied.append(unit.name)
        self.tally.lost = [name for name in self.tally.lost if name != unit.name]
        if unit.name == self._latest:
            self._retry(unit.name, lambda: self.store.delete_old(self.keep, unit.name))

    def _retry(self, what: str, action: Callable[[], Any]) -> Any:
        """Retries with exponential back-off; the jitter keeps many runs from retrying at once."""
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except Exception as error:
                self.tally.failures += 1
                if attempt == ATTEMPTS - 1:
                    raise
                delay = random.SystemRandom().uniform(0.5, 1) * min(LONGEST_WAIT, self.first_wait * 2**attempt)
                _warn(f"{what}: {_first_line(error)}; retrying in {delay:.0f} s")
                if self._stopping.wait(delay):
                    raise
        raise AssertionError("unreachable")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _warn(line: str) -> None:
    print(f"spectra: backup: {line}", file=sys.stderr, flush=True)


def open_backup(section: BackupSection, folder: Path, *, new: bool) -> Backup | None:
    """Opens the backup of a run; returns ``None`` if the recipe names no destination.

    Args:
        section: the recipe's `backup`.
        folder: the run's folder.
        new: whether the run is new; then the destination must not hold a run of its name.

    Raises:
        SpectraError: it does, or the address is not understood. An unreachable destination only prints a warning.
    """
    if section.to is None:
        return None
    store = Store(section.to, folder.name)
    try:
        taken = new and bool(store.units())
    except Exception as error:  # each backend has its own; the network may be back before the first copy
        print(f"spectra: backup: {store.address} cannot be reached yet: {error}", file=sys.stderr, flush=True)
        taken = False
    if taken:
        raise SpectraError(
            f"{store.address} already holds backups of a run of this name. Resume that run: spectra backup restore "
            f"{store.address}, then spectra train --resume; or choose another name."
        )
    return Backup(store, folder, every=section.every, keep=section.keep, wait=section.wait_seconds)
