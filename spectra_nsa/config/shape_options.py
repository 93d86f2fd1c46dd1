"""The keys of a recipe's `model` section that decide the model's shape, as fields of `ModelSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo


@dataclass(frozen=True, kw_only=True)
class ShapeOption:
    """Marks a key of `ModelSection` that sets a field of `ModelSpec`; `null` leaves the field as it is.

    The same names are options of `warm_start`. Opening a start, warm starts, dry runs and ablations read them from
    here, so a new option is a field of the spec and a marked key.

    Attributes:
        field: name of the field; ``None`` for the key's own.
        values: values of the field by those of the key; ``None`` if they are the same.
        warm_start: whether a checkpoint can be given it: as an exact no-op, or in place of what it has.
        part: for a yes-or-no option that ablations switch, what the part is; ``None`` for the others.
    """

    field: str | None = None
    values: Mapping[Any, Any] | None = None
    warm_start: bool = True
    part: str | None = None


def shape_options(fields: Mapping[str, FieldInfo]) -> dict[str, ShapeOption]:
    """Returns the marked ones of a section's fields by name."""
    marked = {
        name: [mark for mark in field.metadata if isinstance(mark, ShapeOption)] for name, field in fields.items()
    }
    return {name: marks[0] for name, marks in marked.items() if marks}


def shape_fields(options: Mapping[str, ShapeOption], values: Mapping[str, Any]) -> dict[str, Any]:
    """Translates options to fields of `ModelSpec`.

    Args:
        options: from `shape_options`.
        values: values by name; ``None`` values and names that are no shape option are left out.
    """
    fields = {}
    for name, option in options.items():
        value = values.get(name)
        if isinstance(value, Mapping):  # a section of its own
            value = {key: part for key, part in value.items() if part is not None} or None
        if value is not None:
            fields[option.field or name] = value if option.values is None else option.values[value]
    return fields
