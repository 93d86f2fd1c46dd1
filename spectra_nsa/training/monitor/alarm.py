"""What an alarm of a run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LogRow = Mapping[str, Any]


@dataclass(frozen=True)
class Alarm:
    """A condition that holds now and calls for a warning.

    Attributes:
        kind: its name, the same each time.
        message: what happened, with the figures.
        remedy: what to do about it.
    """

    kind: str
    message: str
    remedy: str
