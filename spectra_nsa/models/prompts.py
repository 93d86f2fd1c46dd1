"""Prompts: the words that a model puts before queries and documents, the same in training and inference.

sentence-transformers looks for the documents' prompt under three names. But a model that it opens always has an
entry `document`, empty if the folder has none, and this entry hides a prompt named `passage`, the name that E5 uses.
In the same way an empty `query` hides the default prompt. Here an empty prompt counts as none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectra_nsa.core.errors import unknown_name

Prompts = Mapping[str, str | None]
_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}  # in this order
ROLES = tuple(_NAMES)
_OTHER = {"query": "document", "document": "query"}


def check_role(role: str) -> None:
    """Raises `UsageError` unless texts can have this role: ``"query"`` or ``"document"``."""
    if role not in ROLES:
        raise unknown_name("role", role, ROLES)


def role_prompt(prompts: Prompts, default_name: str | None, role: str) -> str:
    """Returns the prompt of a role: the role's own, else the default prompt unless it is named after the other role.

    Args:
        prompts: prompt by name.
        default_name: the name of the default prompt; ``None`` for no default.
        role: ``"query"`` or ``"document"``.

    Returns:
        the prompt; ``""`` for none.

    Raises:
        UsageError: there is no such role.
    """
    check_role(role)
    declared = next((prompt for name in _NAMES[role] if (prompt := prompts.get(name))), None)
    if declared is not None or default_name is None or default_name in _NAMES[_OTHER[role]]:
        return declared or ""
    return prompts.get(default_name) or ""


def with_roles(prompts: Prompts, default_name: str | None) -> dict[str, str]:
    """Returns the prompts with `query` and `document` set to those of the roles, so that every library agrees."""
    roles = {role: role_prompt(prompts, default_name, role) for role in _NAMES}
    return {name: prompt or "" for name, prompt in prompts.items()} | roles


def column_role(column: str) -> str:
    """Returns the role of a column of training texts.

    Anchors are queries, and so are both sides of scored pairs, as `sts` measures them. All others are documents.
    """
    return "query" if column == "anchor" or column.startswith("sentence") else "document"


def column_prompts(prompts: Prompts, columns: Sequence[str]) -> dict[str, str]:
    """Returns the prompt of each column that has one; `prompts` is as `with_roles` returns it."""
    by_column = {name: prompts.get(column_role(name)) for name in columns}
    return {name: prompt for name, prompt in by_column.items() if prompt}


class Prompted:
    """The encoding methods by role, of encoders that have `encode` and prompts by name.

    Attributes:
        prompts: prompt by name, with those of the roles.
        default_prompt_name: the prompt that `encode` uses by default; ``None`` for none.
        encode: the method that each encoder has; `prompt_name` names the prompt.
    """

    prompts: dict[str, str]
    default_prompt_name: str | None
    encode: Any

    def encode_query(self, inputs: str | Sequence[str], **options: Any) -> Any:
        """Encodes with the prompt of queries, if there is one."""
        return self.encode(inputs, **({"prompt_name": "query"} | options))

    def encode_document(self, inputs: str | Sequence[str], **options: Any) -> Any:
        """Encodes with the prompt of documents, if there is one."""
        return self.encode(inputs, **({"prompt_name": "document"} | options))

    def _named_prompt(self, name: str | None) -> str | None:
        name = self.default_prompt_name if name is None else name
        if name is not None and name not in self.prompts:
            raise unknown_name("prompt", name, tuple(self.prompts))
        return None if name is None else self.prompts[name]
