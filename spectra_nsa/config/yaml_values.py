"""YAML whose names stay as they are written: a column may be called `1`, `1e5`, `yes` or `2024-01-01`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from spectra_nsa.core.errors import UsageError

_MOST_NODES = 10_000
_TEXT, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"


def parse_yaml(text: str, annotation: Any) -> Any:
    """Returns the value of a YAML text. What has to be text by its type stays text.

    Args:
        text: one YAML document; an empty one is ``None``.
        annotation: the type of the value, such as a pydantic model; ``None`` if it is unknown.

    Raises:
        yaml.YAMLError: it is not YAML, or holds a value that Python does not have, such as the 13th month.
        UsageError: a mapping has a key twice, or the values are nested too deep or too many (with those of aliases).
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _keep_text(node, annotation, itertools.count())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise UsageError("the values are nested too deep.") from error
    except (ValueError, OverflowError, TypeError) as error:  # those of the constructors of dates and numbers
        if isinstance(error, UsageError):
            raise
        raise yaml.YAMLError(str(error)) from error


def annotation_of(schema: Any, key: str) -> Any:
    """Returns the type of a dotted key of a pydantic model; ``None`` if the model has no such key."""
    for part in key.split("."):
        members = (_member(kind, part) for kind in _alternatives(schema))
        schema = next((member for member in members if member is not None), None)
    return schema


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Returns the pydantic models among the alternatives of a type."""
    return [kind for kind in _alternatives(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]


def is_text(annotation: Any) -> bool:
    """Returns whether text is the only scalar that a type allows, besides null."""
    kinds = [kind for kind in _alternatives(annotation) if kind is not NoneType]
    return bool(kinds) and all(kind is str for kind in kinds)


def _member(kind: Any, name: str) -> Any:
    """Returns the type of a field of a model, or of the values of a mapping; ``None`` for any other type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_fields[name].annotation if name in kind.model_fields else None
    return get_args(kind)[1] if get_origin(kind) is dict else None


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yields the types of a union, without what `Annotated` adds."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for kind in get_args(annotation):
            yield from _alternatives(kind)
    elif annotation is not None:
        yield annotation


def _keep_text(node: yaml.Node, annotation: Any, visits: Iterator[int]) -> None:
    """Marks the scalars that have to be text as text; counts the nodes, those of an alias each time."""
    if next(visits) >= _MOST_NODES:
        raise UsageError(f"there are more than {_MOST_NODES:,} values.")
    if isinstance(node, yaml.ScalarNode):
        if is_text(annotation) and node.tag != _NULL:
            node.tag = _TEXT
        return
    kinds = [kind for kind in _alternatives(annotation) if kind is not NoneType]
    kind = kinds[0] if len(kinds) == 1 else None
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _keep_text(item, get_args(kind)[0] if get_origin(kind) is list else None, visits)
        return
    names: set[str] = set()
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if name in names:
            raise UsageError(f"line {key.start_mark.line + 1}: the key {name!r} appears twice. Keep one of them.")
        names |= {name} if name else set()
        _keep_text(value, _member(kind, name), visits)
