"""Copies of a run elsewhere, made beside the training: to a folder (a mounted drive) or any address that fsspec knows.

A copy is a unit, `TO/RUN/step-N` or `TO/RUN/model`: files under their names in the run's folder, and a manifest that
comes last. A unit without a manifest is not there. Files arrive under `TO/RUN/.incoming`, are read back, compared by
SHA-256, and then renamed.
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
        copied: units that are whole at the destination.
        failures: attempts that failed, each of which was warned of.
        lost: units given up after the last attempt, and not copied later.
        superseded: checkpoints not copied since a later one was ready before their turn came.
    """

    copied: list[str] = field(default_factory=list)
    failures: int = 0
    lost: list[str] = field(default_factory=list)
    superseded: int = 0


class Backup:
    """Copies units in a thread of its own; nothing that happens there reaches the training.

    Args:
        store: where to.
        folder: the run's.
        every: checkpoints between copies.
        keep: how many checkpoints stay at the destination; the best stays besides.
        wait: seconds that `finish` waits at most.
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

    def held(self) -> list[Path]:
        """Checkpoints that are being copied, or wait for it: not to be deleted."""
        with self._change:
            units = [*self._queue, *([self._at_work] if self._at_work else [])]
        return [unit.source for unit in units if unit.source is not None]

    def saved(self, checkpoint: Path, best: Path | None) -> None:
        """To be called with each new checkpoint: every so-many-th is copied, and the best so far with it."""
        self._seen += 1
        if self._seen % self.every:
            return
        try:
            self.copy(checkpoint, best)
        except Exception as error:  # as in `_work`
            self._give_up(checkpoint.name, error)

    def copy(self, checkpoint: Path, best: Path | None) -> None:
        """Queues a checkpoint, and the best one; takes the place of those that still wait."""
        found = [checkpoint, *([best] if best is not None and best != checkpoint else [])]
        units = [checkpoint_unit(self.folder, one) for one in reversed(found)]
        with self._change:
            self._latest = checkpoint.name
            self.tally.superseded += sum(unit.name not in {one.name for one in units} for unit in self._queue)
            self._queue = units
            self._change.notify_all()
        self._start()

    def finish(self, best: Path | None, *, model: bool) -> Tally:
        """Copies the last checkpoint and `model/`, and waits for all of it, but not for ever.

        Args:
            best: see `saved`.
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
            _warn(f"not finished after {self.wait:.0f} s: {', '.join(undone)}; what is in {self.folder} is whole")
            self.tally.lost += [name for name in undone if name not in self.tally.lost]
        return self.tally

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="backup", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own: the training goes first
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
                self._bring(unit)
            except Exception as error:  # whatever a backend raises: the training is worth more than its copy
                self._give_up(unit.name, error)
            finally:
                with self._change:
                    self._at_work = None
                    self._change.notify_all()

    def _give_up(self, name: str, error: Exception) -> None:
        if name not in self.tally.lost:
            self.tally.lost.append(name)
        _warn(f"{name} was not copied to {self.store.address}: {_told(error)}")

    def _bring(self, unit: Unit) -> None:
        if self._patiently(unit.name, lambda: self.store.holds(unit)):
            return
        self._patiently(unit.name, lambda: self.store.begin(unit))
        for name in unit.files:
            self._patiently(f"{unit.name}/{name}", lambda name=name: self.store.send(unit, name))  # type: ignore[misc]
        self._patiently(f"{unit.name}/{MANIFEST}", lambda: self.store.commit(unit))
        self.tally.copied.append(unit.name)
        self.tally.lost = [name for name in self.tally.lost if name != unit.name]
        if unit.name == self._latest:
            self._patiently(unit.name, lambda: self.store.rotate(self.keep, unit.name))

    def _patiently(self, what: str, action: Callable[[], Any]) -> Any:
        """Tries again with exponential back-off; the jitter keeps many runs from trying at once."""
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except Exception as error:
                self.tally.failures += 1
                if attempt == ATTEMPTS - 1:
                    raise
                delay = random.SystemRandom().uniform(0.5, 1) * min(LONGEST_WAIT, self.first_wait * 2**attempt)
                _warn(f"{what}: {_told(error)}; trying again in {delay:.0f} s")
                if self._stopping.wait(delay):
                    raise
        raise AssertionError("unreachable")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _warn(line: str) -> None:
    print(f"spectra: backup: {line}", file=sys.stderr, flush=True)


def open_backup(section: BackupSection, folder: Path, *, new: bool) -> Backup | None:
    """What copies a run's checkpoints; ``None`` where the recipe names no place for them.

    Args:
        section: the recipe's `backup`.
        folder: its folder.
        new: whether it begins; then the place may not hold another run of its name.

    Raises:
        SpectraError: it does, or the address cannot be understood. A place that cannot be reached is only warned of.
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
            f"{store.address} holds backups of a run of this name. Go on with it: spectra backup restore "
            f"{store.address}, then spectra train --resume; or choose another name."
        )
    return Backup(store, folder, every=section.every, keep=section.keep, wait=section.wait)
