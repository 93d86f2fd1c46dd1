"""Size presets: `presets/NAME.yaml`, each a model's shape and the training defaults that go with it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from spectra_nsa.core.errors import unknown_name

NAMES = ("M456", "M600", "M700", "M1B", "nexus-240m", "nexus-mini", "large", "medium", "mini", "small")
DEFAULT = "M456"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named size.

    Attributes:
        name: such as ``"M456"``.
        about: a sentence for people.
        model: fields of the model's config.
        train: defaults for a recipe's `train` section.
    """

    name: str
    about: str
    model: dict[str, Any]
    train: dict[str, Any]


def load_preset(name: str) -> Preset:
    """The preset of that name; upper and lower case do not matter.

    Raises:
        UsageError: there is none; the message offers the nearest.
    """
    found = {known.lower(): known for known in NAMES}.get(name.lower())
    if found is None:
        raise unknown_name("size preset", name, NAMES)
    text = (resources.files("spectra_nsa.config") / "presets" / f"{found}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    return Preset(name=found, about=values["about"], model=values["model"], train=values["train"])
