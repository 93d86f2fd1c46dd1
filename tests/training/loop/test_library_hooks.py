"""The names of libraries that the package relies on: they exist as listed, and none is missing from the list."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spectra_nsa
from spectra_nsa.training.loop.library_hooks import HOOKS, LibraryHook

LIBRARIES = ("torch", "transformers", "accelerate", "sentence_transformers", "datasets", "tokenizers", "safetensors")
PACKAGE = Path(spectra_nsa.__file__).parent
PRIVATE = re.compile(r"_[A-Za-z]\w*")
DOCUMENTED = {"_fields", "_asdict", "_replace", "_make", "_exit"}  # of named tuples and os
STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def owner_of(hook: LibraryHook) -> Any:
    """Imports the module or class that a hook names."""
    parts = hook.owner.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for name in parts[count:]:
            found = getattr(found, name)
        return found
    raise ImportError(hook.owner)


def parameters_of(value: Any) -> str | None:
    """Returns the parameters of a function or a torch operator, in the notation of the list."""
    if hasattr(value, "overloads"):
        return ", ".join(
            argument.name + ("=" if argument.has_default_value() else "")
            for argument in value.default._schema.arguments
        )
    if not inspect.isfunction(value):
        return None
    return ", ".join(
        STARS.get(parameter.kind, "") + parameter.name + ("=" if parameter.default is not parameter.empty else "")
        for parameter in inspect.signature(value).parameters.values()
        if parameter.name != "self"
    )


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: f"{hook.owner.rpartition('.')[2]}.{hook.name}")
def test_the_installed_libraries_have_what_we_hook_into(hook: LibraryHook) -> None:
    owner = owner_of(hook)
    if hasattr(owner, hook.name):
        assert parameters_of(getattr(owner, hook.name)) == hook.parameters
    else:  # set by instances
        assert re.search(rf"self\.{hook.name}\b", inspect.getsource(owner)), "gone"


def test_no_hook_is_listed_twice() -> None:
    assert len({(hook.owner, hook.name) for hook in HOOKS}) == len(HOOKS)


def defined_names(trees: list[ast.Module]) -> set[str]:
    """Returns the names that the package defines: functions, classes, variables and attributes of `self`."""
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    return names


def foreign_names() -> Iterator[tuple[str, str]]:
    """Yields private attributes and imports that the package uses but does not define, each with its file."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    ours = defined_names(list(trees.values())) | DOCUMENTED
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr) and node.attr not in ours:
                yield node.attr, str(path)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
                for alias in node.names:
                    if PRIVATE.fullmatch(alias.name):
                        yield alias.name, str(path)


def subclasses() -> Iterator[tuple[type, list[type]]]:
    """Yields each class of the package that derives from a library's, and those classes of the library."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "spectra_nsa."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and value.__module__ == module.name:
                bases = [base for base in value.__mro__[1:] if base.__module__.split(".")[0] in LIBRARIES]
                if bases:
                    yield value, bases


def inherited_names() -> Iterator[tuple[str, str]]:
    """Yields private names of a library's classes that our subclasses override, call or assign."""
    for value, bases in subclasses():
        made = ("_abc_", "_backward_cls")  # by the metaclasses of abstract classes and of autograd's functions
        names = {name for name in vars(value) if PRIVATE.fullmatch(name) and not name.startswith(made)}
        names |= set(re.findall(r"(?:self|super\(\))\.(_[A-Za-z]\w*)", inspect.getsource(value)))
        for base in bases:
            try:
                source = inspect.getsource(base)
            except (OSError, TypeError):  # compiled, or made on the fly
                source = ""
            for name in names:
                if name in vars(base) or re.search(rf"self\.{name}\b", source):
                    yield name, f"{value.__module__}.{value.__name__}"


def test_every_private_name_of_a_library_is_listed() -> None:
    listed = {hook.name for hook in HOOKS}
    missing = {(name, user) for name, user in [*foreign_names(), *inherited_names()] if name not in listed}
    assert not missing, f"add to training/loop/library_hooks.py: {sorted(missing)}"
