"""Errors for the user: what is wrong, where, and what to do about it."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping


class SpectraError(ValueError):
    """A problem in the user's input, files or machine. The command line prints the message and exits with 1."""


class UsageError(SpectraError):
    """A mistake in the command, the recipe or an option. The command line prints the message and exits with 2."""


def unknown_name(kind: str, name: object, valid: Iterable[str], also: Mapping[str, str] | None = None) -> UsageError:
    """Returns a `UsageError` for a misspelt name that offers the nearest valid one.

    Args:
        kind: the kind of name, such as ``"preset"`` or ``"recipe key"``.
        name: what the user wrote.
        valid: every accepted name, in the order in which they should be listed.
        also: names that other tools use, with the valid one that means the same.
    """
    names, others = list(valid), dict(also or {})
    near = difflib.get_close_matches(str(name), [*others, *names], n=1, cutoff=0.5)
    hint = f" Did you mean {others.get(near[0], near[0])!r}?" if near else ""
    return UsageError(f"unknown {kind} {str(name)!r}.{hint} Valid: {', '.join(names)}.")


def missing_extra(package: str, extra: str) -> SpectraError:
    """Returns the error for an optional package that is not installed."""
    return SpectraError(f'{package} is not installed. Install it with: pip install "spectra-nsa[{extra}]"')


@contextlib.contextmanager
def opening(name: object) -> Iterator[None]:
    """Turns what a library raises about a model's files into a `SpectraError`; that can be of any type.

    Args:
        name: the model, for the message.
    """
    try:
        yield
    except (SpectraError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise SpectraError(
            f"{name} cannot be opened ({type(error).__name__}: {reason[:300]}). One of its files is damaged, or of a "
            "version that the installed libraries do not read."
        ) from error


@contextlib.contextmanager
def errors_begin(start: str) -> Iterator[None]:
    """Puts a few words in front of the errors for the user, such as the recipe key at fault."""
    try:
        yield
    except SpectraError as error:
        kind = UsageError if isinstance(error, UsageError) else SpectraError
        raise kind(f"{start}: {error}") from error
