"""Recipe keys under their former names, which recipes of earlier versions still use."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from typing import Any

from spectra_nsa.core.errors import UsageError

# Former key → key; `*` stands for any name. `watch` and `monitor` are whole sections.
RENAMED: Mapping[str, str] = {
    "watch": "monitor",
    "model.words": "model.token_vectors",
    "model.layers": "model.keep_layers",
    "loss.terms.*.joined": "loss.terms.*.train_encoder",
    "train.clip": "train.max_grad_norm",
    "train.gate_lr": "train.gate_lr_factor",
    "train.length_groups": "train.passes_per_batch",
    "train.cached_batch": "train.cached_pass_tokens",
    "train.fit_codes": "train.fit_heads",
    "pretrain.also": "pretrain.extra_sources",
    "backup.wait": "backup.wait_seconds",
}


def current_key(key: str) -> str:
    """Returns a dotted key with every former name in it replaced; a line on standard error says so."""
    path = key.split(".")
    for former, current in RENAMED.items():
        names = former.split(".")
        if len(names) <= len(path) and all(name in ("*", part) for name, part in zip(names, path, strict=False)):
            before = ".".join(path[: len(names)])
            path[len(names) - 1] = current.rpartition(".")[2]
            _warn(before, ".".join(path[: len(names)]))
    return ".".join(path)


def with_current_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested values of a recipe with former names replaced; a line on standard error names each.

    Args:
        values: as read from YAML; not changed.

    Raises:
        UsageError: a key is given under its former and its current name.
    """
    current = copy.deepcopy(dict(values))
    for former, key in RENAMED.items():
        _rename(current, former.split("."), key.rpartition(".")[2], prefix="")
    return current


def _rename(section: Any, path: list[str], name: str, prefix: str) -> None:
    if not isinstance(section, dict):
        return
    first, *rest = path
    if rest:
        for part in list(section) if first == "*" else [first]:
            _rename(section.get(part), rest, name, f"{prefix}{part}.")
    elif first in section:
        if name in section:
            raise UsageError(
                f"{prefix}{first} is the former name of {prefix}{name}, and both are given: remove {prefix}{first}."
            )
        section[name] = section.pop(first)
        _warn(prefix + first, prefix + name)


def _warn(former: str, current: str) -> None:
    print(f"spectra: warning: {former} is now called {current}", file=sys.stderr, flush=True)
