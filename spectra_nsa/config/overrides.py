"""`key=value` overrides of a recipe on the command line."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel

from spectra_nsa.config.yaml_values import annotation_of, is_text, parse_yaml
from spectra_nsa.core.errors import UsageError


def read_override(override: str, schema: type[BaseModel]) -> tuple[str, Any]:
    """Returns the dotted key and the value of ``key=value``.

    Args:
        override: the text.
        schema: the recipe's model, which says what has to be text.

    Raises:
        UsageError: it is not of that form, or the value is not YAML or has a key twice.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"{override!r} is neither an existing recipe file nor key=value (such as train.lr=1e-4).")
    return key, _parse(text, annotation_of(schema, key))


def _parse(text: str, annotation: Any) -> Any:
    try:
        value = parse_yaml(text, annotation)
    except yaml.YAMLError as error:
        raise UsageError(f"{text!r} is not a YAML value: {str(error).splitlines()[0]}.") from error
    if isinstance(value, str) and not is_text(annotation):  # YAML 1.1 reads 1e-4 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def set_value(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets the value of a dotted key, creating sections as needed.

    Raises:
        UsageError: one of the sections is a value.
    """
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise UsageError(f"{key}: {section} is not a section.")
        values = inner
    values[last] = value
