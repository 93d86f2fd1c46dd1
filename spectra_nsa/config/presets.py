"""Size presets: `presets/NAME.yaml` holds a model's shape and its training defaults."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from spectra_nsa.core.errors import unknown_name

_TWINS = tuple(f"{size}-moe{kind}" for size in ("large", "medium", "small") for kind in ("", "-total"))
NAMES = ("M456", "M600", "M700", "M1B", "nexus-240m", "nexus-mini", "large", "medium", "mini", "small", *_TWINS)
DEFAULT = "M456"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named size.

    Attributes:
        name: such as ``"M456"``.
        about: one sentence.
        model: fields of the model's config.
        train: defaults for a recipe's `train` section.
    """

    name: str
    about: str
    model: dict[str, Any]
    train: dict[str, Any]


def load_preset(name: str) -> Preset:
    """Returns the preset of that name, in any case.

    Raises:
        UsageError: there is no such preset; the message offers the nearest.
    """
    exact = {known.lower(): known for known in NAMES}.get(name.lower())
    if exact is None:
        raise unknown_name("size preset", name, NAMES)
    text = (resources.files("spectra_nsa.config") / "presets" / f"{exact}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    return Preset(name=exact, about=values["about"], model=values["model"], train=values["train"])
