"""The parts of the reference that come from the code: recipe keys, commands, the Python interface.

``python docs/generate.py`` writes them into the pages in docs/reference, between ``<!-- generated: PART -->`` and
``<!-- end -->``. The site shows the same, but renders the whole docstrings of the Python interface.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import spectra_nsa
import spectra_nsa.runtime
from spectra_nsa.cli.main import app
from spectra_nsa.config.recipe import Recipe

Row = Sequence[str]


def recipe_reference() -> str:
    """Returns every key of a recipe: a table for the top level and one for each section."""
    top_level = {name: field for name, field in Recipe.model_fields.items() if _section(field.annotation) is None}
    parts = ["## Top level", _keys("", top_level)]
    for name, field in Recipe.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            parts += _section_reference(name, section)
    return "\n\n".join(parts)


def cli_reference() -> str:
    """Returns every command with its usage, arguments and options, as `--help` describes them."""
    parts = []
    for name, command in _commands(typer.main.get_command(app), "spectra"):
        words = " ".join(_metavar(parameter) for parameter in command.params if _is_argument(parameter))
        parts += [f"## {name}", *_help(command.help or ""), f"```\n{name} {words} [OPTIONS]\n```".replace("  ", " ")]
        arguments = [[f"`{_metavar(p)}`", p.help or ""] for p in command.params if _is_argument(p)]
        options = [
            [_flags(p), _default(p.default), p.help or ""]
            for p in command.params
            if not _is_argument(p) and "--help" not in p.opts
        ]
        if arguments:
            parts.append(_table(["argument", "meaning"], arguments))
        if options:
            parts.append(_table(["option", "default", "meaning"], options))
    return "\n\n".join(parts)


def python_reference() -> str:
    """Returns a mkdocstrings directive for each public name of the package."""
    return "\n\n".join(f"::: spectra_nsa.{name}" for name in _public_names())


def python_list() -> str:
    """Returns the public names with their signatures and the first paragraphs of their docstrings."""
    parts = []
    for name in _public_names():
        entry = operator.attrgetter(name)(spectra_nsa)
        parts += [f"## `{name}`", (inspect.getdoc(entry) or "").split("\n\n")[0]]
        if not inspect.isclass(entry):
            parts.append(f"```text\n{_signature(name, entry)}\n```")
        elif methods := _methods(entry):
            parts.append(_table(["method", "what it does"], methods))
    return "\n\n".join(parts)


PARTS: Mapping[str, Callable[[], str]] = {"recipe": recipe_reference, "cli": cli_reference, "python": python_reference}
WITHOUT_SITE: Mapping[str, Callable[[], str]] = {**PARTS, "python": python_list}  # what the pages in git hold
REFERENCE = Path(__file__).resolve().parent / "reference"
NOTE = "*Generated from the code by `python docs/generate.py`. Change the code, not this page.*"
_GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """Returns a page with its generated parts written anew."""
    return _GENERATED.sub(lambda found: f"{found[1]}{NOTE}\n\n{parts[found[2]]()}\n{found[3]}", page)


def _public_names() -> list[str]:
    runtime = [f"runtime.{name}" for name in spectra_nsa.runtime.__all__]
    return [*sorted((name for name in spectra_nsa.__all__ if not name.startswith("_")), key=str.lower), *runtime]


def _methods(kind: type) -> list[Row]:
    """Returns the documented methods that a class itself defines, each with the first line of its docstring."""
    rows = []
    for name in vars(kind):
        method = getattr(kind, name)
        if not name.startswith("_") and callable(method) and (text := inspect.getdoc(method)):
            rows.append([f"`{name}`", text.split("\n\n")[0].replace("\n", " ")])
    return rows


def _signature(name: str, function: Callable[..., Any]) -> str:
    """Returns a function's signature, one parameter a line."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    lines = [_parameter(parameter) for parameter in parameters]
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        lines.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f") -> {signature.return_annotation}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}: {parameter.annotation}"
    if parameter.default is parameter.empty:
        return text
    return f"{text} = {'…' if callable(parameter.default) else repr(parameter.default)}"


def _section_reference(name: str, section: type[BaseModel]) -> Iterator[str]:
    """Yields a section's heading, its docstring and its tables; sections inside it follow."""
    yield f"## {name}"
    yield (section.__doc__ or "").split("\n\n")[0].strip()
    plain = {key: field for key, field in section.model_fields.items() if _section(field.annotation) is None}
    inner = {key: _section(field.annotation) for key, field in section.model_fields.items() if key not in plain}
    yield _keys(f"{name}.", plain)
    for key, field in plain.items():
        entry = _entry(field.annotation)
        if entry is not None:
            yield f"### {name}.{key}.NAME"
            yield (entry.__doc__ or "").split("\n\n")[0].strip()
            yield _keys(f"{name}.{key}.NAME.", entry.model_fields)
    for key, below in inner.items():
        assert below is not None
        if all(isinstance(field.default, BaseModel) for field in below.model_fields.values()):
            yield f"### {name}.{key}"
            yield (below.__doc__ or "").split("\n\n")[0].strip()
            yield _defaults_table(f"{name}.{key}.", below)
        else:
            yield from _section_reference(f"{name}.{key}", below)


def _keys(prefix: str, fields: dict[str, FieldInfo]) -> str:
    rows = [
        [
            f"`{prefix}{key}`",
            _type(field.annotation),
            _value(field.get_default(call_default_factory=True)),
            field.description or "",
        ]
        for key, field in fields.items()
    ]
    return _table(["key", "type", "default", "meaning"], rows)


def _defaults_table(prefix: str, section: type[BaseModel]) -> str:
    """Returns the defaults of entries that share their keys, one row for each entry, and what the keys mean."""
    entries = {name: field.default for name, field in section.model_fields.items()}
    keys: dict[str, FieldInfo] = {}
    for entry in entries.values():
        for key, field in type(entry).model_fields.items():
            keys.setdefault(key, field)
    rows = [
        [
            f"`{prefix}{name}`",
            *(_value(getattr(entry, key)) if hasattr(entry, key) else "" for key in keys),
            section.model_fields[name].description or "",
        ]
        for name, entry in entries.items()
    ]
    meanings = [f"- `{key}`: {field.description}" for key, field in keys.items() if field.description]
    return _table(["entry", *(f"`.{key}`" for key in keys), "meaning"], rows) + "\n\n" + "\n".join(meanings)


def _section(annotation: Any) -> type[BaseModel] | None:
    """Returns the section that a field holds, ``None`` if the field is a value."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _entry(annotation: Any) -> type[BaseModel] | None:
    """Returns the section of the values of a mapping, ``None`` if the field is no mapping of sections."""
    if get_origin(annotation) in (Union, UnionType):
        return next((entry for kind in get_args(annotation) if (entry := _entry(kind)) is not None), None)
    if get_origin(annotation) is Annotated:
        return _entry(get_args(annotation)[0])
    return _section(get_args(annotation)[1]) if get_origin(annotation) is dict else None


def _type(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return "null"
    if origin in (Union, UnionType):
        return _alternatives([_type(kind) for kind in inside])
    if origin is Literal:
        return _alternatives([f"`{value}`" for value in inside])
    if origin is Annotated:
        return _type(inside[0])
    if origin is list:
        return f"list of {_plural(_type(inside[0]))}"
    if origin is dict and _section(inside[1]) is not None:
        return "mapping of names to sections"
    if origin is dict:
        return f"mapping of {_plural(_type(inside[0]))} to {_plural(_type(inside[1]))}"
    names = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}
    return names.get(annotation.__name__, annotation.__name__)


def _alternatives(kinds: Sequence[str]) -> str:
    """Joins kinds as in "a, b or c"."""
    *first, last = [part for kind in kinds for part in kind.split(" or ")]
    return f"{', '.join(first)} or {last}" if first else last


def _plural(kind: str) -> str:
    return f"{kind}s" if kind in ("text", "integer", "number") else kind


def _value(value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _is_argument(parameter: Any) -> bool:
    return parameter.param_type_name == "argument"


def _metavar(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


def _flags(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    shown = f" {parameter.metavar}" if parameter.metavar else ""
    return ", ".join(f"`{name}{shown}`" for name in sorted(names, key=len, reverse=True))


def _default(value: Any) -> str:
    if value is None or value is False or value == () or value == [] or callable(value):
        return ""
    return f"`{_value(getattr(value, 'value', value))}`"


def _help(text: str) -> list[str]:
    """Returns a command's help as Markdown; an example becomes a block of code."""
    blocks = []
    for paragraph in text.replace("\b", "").split("\n\n"):
        joined = " ".join(paragraph.split())
        if joined.startswith("Example: "):
            joined = "```bash\n" + joined.removeprefix("Example: ") + "\n```"
        blocks.append(joined)
    return blocks


def _table(columns: Row, rows: Sequence[Row]) -> str:
    cells = [
        [" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in [columns, ["---"] * len(columns), *rows]
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


if __name__ == "__main__":
    for page in sorted(REFERENCE.glob("*.md")):
        page.write_text(filled(page.read_text(encoding="utf-8"), WITHOUT_SITE), encoding="utf-8")
