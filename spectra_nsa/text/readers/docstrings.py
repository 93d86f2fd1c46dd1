"""Pairs from the functions of a Python file: the first paragraph of the docstring, and the code without the docstring.

The file is parsed, never imported or run. The docstring is cut out at its exact position, so comments and layout stay
as they are.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

MIN_WORDS, MIN_CHARACTERS, MAX_CHARACTERS = 3, 15, 1_000
MIN_CODE_CHARACTERS, MAX_CODE_CHARACTERS = 20, 8_000
MIN_CODE_LINES = 3  # a one-line body usually only calls another function

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_END_OF_PROSE = re.compile(  # a line that starts the reference part
    r"\s*(:(param|parameter|type|arg|return|returns|rtype|raises?|keyword|var|meta)\b.*|@\w+.*|>>>.*|\.\. .*"
    r"|(args?|arguments|parameters?|returns?|raises?|yields?|examples?|notes?|usage|attributes|keyword args)\s*:\s*"
    r"|(parameters|returns|raises|yields|examples?|notes|attributes|see also)\s*)",
    re.I,
)
_RULE = re.compile(r"\s*([-=~^*#_+`.])\1{2,}\s*")
_SIGNATURE = re.compile(r"[\w.*]+\s*\(.*\)\s*((->|=>|--|:).{0,40})?")
_WORD = re.compile(r"[^\W\d_]{2,}")
_JUNK = re.compile(r"(todo|fixme|xxx|deprecated|overrid|inherit|see\b|same as\b|alias\b|refer to\b|test for #)", re.I)


class FunctionPair(NamedTuple):
    """One function.

    Attributes:
        description: the first paragraph of the docstring.
        code: the source without the docstring.
        name: the name within the module, such as ``"Class.method"``.
        line: the first line of the function in the file.
    """

    description: str
    code: str
    name: str
    line: int


def function_pairs(source: bytes | str) -> list[FunctionPair]:
    """Returns the pairs of one file, in the order of their lines.

    Args:
        source: the file. Bytes are decoded as Python does: by byte-order mark, coding comment, or as UTF-8.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: `ast.parse` cannot read the file.
    """
    text = decode(source) if isinstance(source, bytes) else source
    if '"""' not in text and "'''" not in text and text.count('"') + text.count("'") < 2:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as invalid escapes, which are not ours to fix
        tree = ast.parse(text)
    lines = re.split(r"(?<=\n)", text.replace("\r\n", "\n").replace("\r", "\n"))
    pairs = (_pair(node, name, lines) for node, name in _functions(tree, ""))
    return [pair for pair in pairs if pair is not None]


def decode(source: bytes) -> str:
    """Decodes a Python file.

    Raises:
        SyntaxError: it is not in the encoding it declares.
    """
    head = source[:200]
    if source.isascii() or (b"coding" not in head and not head.startswith(b"\xef\xbb\xbf")):
        try:
            return source.decode("utf-8")
        except UnicodeDecodeError as error:
            raise SyntaxError(f"not UTF-8 at byte {error.start}") from error
    import io
    import tokenize

    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    try:
        return source.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise SyntaxError(f"not {encoding}: {error}") from error


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[_Function, str]]:
    """Yields functions, methods and the functions inside them, with their qualified names."""
    for child in getattr(node, "body", []):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child, prefix + child.name
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            yield from _functions(child, prefix)
            for branch in ("orelse", "finalbody"):
                yield from _functions(ast.Module(body=getattr(child, branch, []), type_ignores=[]), prefix)


def _pair(node: _Function, name: str, lines: list[str]) -> FunctionPair | None:
    """Returns the pair of one function; ``None`` if it has no usable description or too little or too much code."""
    docstring = ast.get_docstring(node, clean=True)
    if docstring is None or not _does_something(node):
        return None
    prose = description(docstring)
    if prose is None:
        return None
    code = without_docstring(node, lines)
    if not MIN_CODE_CHARACTERS <= len(code) <= MAX_CODE_CHARACTERS or code.count("\n") + 1 < MIN_CODE_LINES:
        return None
    if prose.lower() in " ".join(code.lower().split()):  # the answer must not quote the question
        return None
    return FunctionPair(prose, code, name, _first_line(node))


def description(docstring: str) -> str | None:
    """Returns the first paragraph of a cleaned docstring on one line; ``None`` if it is not usable prose.

    A signature before the prose is skipped. Lists of parameters, doctests and directives end the paragraph.
    """
    for paragraph in re.split(r"\n\s*\n", docstring)[:2]:
        kept: list[str] = []
        for line in paragraph.splitlines():
            if _END_OF_PROSE.fullmatch(line):
                break
            if not _RULE.fullmatch(line):
                kept.append(line)
        text = " ".join(" ".join(kept).split())
        if _SIGNATURE.fullmatch(text):
            continue
        return text if _is_prose(text) else None
    return None


def _is_prose(text: str) -> bool:
    """Returns whether a text looks like an English sentence about code."""
    if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS or _JUNK.match(text):
        return False
    words = _WORD.findall(text)
    letters = sum(character.isascii() and (character.isalpha() or character == " ") for character in text)
    return len(words) >= MIN_WORDS and len(text.split()) >= MIN_WORDS and letters >= 0.75 * len(text)


def _does_something(node: _Function) -> bool:
    """Returns whether a body has more than its docstring, `pass`, `...` and `raise NotImplementedError`."""
    return any(not _is_stub(statement) for statement in node.body)


def _is_stub(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.Raise):
        raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    return isinstance(statement, ast.Pass)


def _first_line(node: _Function) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def without_docstring(node: _Function, lines: list[str]) -> str:
    """Returns the dedented source of a function, decorators included, without the strings at the start of its body.

    Args:
        node: a function with a docstring and at least one more statement.
        lines: the lines of the file, including line breaks.
    """
    first, last = _first_line(node) - 1, node.end_lineno or node.lineno
    kept = lines[first:last]
    kept[-1] = _cut(kept[-1], 0, node.end_col_offset or 0) if last == node.end_lineno else kept[-1]
    for statement in reversed(_leading_strings(node)):
        _remove(kept, statement, first)
    margin = len(lines[first]) - len(lines[first].lstrip(" \t"))
    indent = lines[first][:margin]
    return "".join(line.removeprefix(indent) for line in kept).rstrip()


def _leading_strings(node: _Function) -> list[ast.Expr]:
    strings: list[ast.Expr] = []
    for statement in node.body:
        value = statement.value if isinstance(statement, ast.Expr) else None
        if not isinstance(statement, ast.Expr) or not (
            isinstance(value, ast.Constant) and isinstance(value.value, str)
        ):
            break
        strings.append(statement)
    return strings


def _cut(line: str, start: int, end: int) -> str:
    """Returns the part of a line between two offsets, which `ast` counts in UTF-8 bytes."""
    return line[start:end] if line.isascii() else line.encode("utf-8")[start:end].decode("utf-8")


def _remove(kept: list[str], statement: ast.Expr, first: int) -> None:
    """Cuts a statement out of `kept`, whose first element is line `first` (from 0) of the file. Empty lines go too."""
    top, bottom = statement.lineno - 1 - first, (statement.end_lineno or statement.lineno) - 1 - first
    before = _cut(kept[top], 0, statement.col_offset)
    after = _cut(kept[bottom], statement.end_col_offset or 0, 1 << 30)
    following = after.lstrip()
    if following.startswith(";"):
        following = following[1:].lstrip()
    if before.strip() or following:
        kept[top : bottom + 1] = [before + (following or "\n")]
    else:
        kept[top : bottom + 1] = []
