"""Functions to pairs: the docstring is removed from the code, and nothing else is."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_nsa.text.readers.docstrings import description, function_pairs

DOC = "Adds one to a number and gives it back."


def single_pair(source):
    pairs = function_pairs(textwrap.dedent(source))
    assert len(pairs) == 1
    return pairs[0]


def test_the_docstring_is_removed_and_comments_stay():
    pair = single_pair(f'''
        class Adder:
            @staticmethod
            def add(x):  # a comment
                """{DOC}

                More about it.
                """  # noqa
                # another
                y = x + 1
                return y

        z = 3
    ''')
    assert pair.description == DOC
    assert (pair.name, pair.line) == ("Adder.add", 3)
    assert pair.code == (
        "@staticmethod\ndef add(x):  # a comment\n    # noqa\n    # another\n    y = x + 1\n    return y"
    )


@pytest.mark.parametrize(
    "body",
    [
        '"""{}"""; y = x\n    return y + 1',
        "'{}'\n    y = x\n    return y + 1",
        '("{}"\n     "")\n    y = x\n    return y + 1',
        '"""{}"""\n    "a second string"\n    y = x\n    return y + 1',
        '"""{}"""\n    s = """é\nat the margin"""\n    return s',
    ],
)
def test_shapes_of_docstrings(body):
    pair = single_pair(f"async def add(x):\n    {body.format(DOC)}\n")
    tree = ast.parse(pair.code)
    assert ast.get_docstring(tree.body[0]) is None
    assert DOC not in pair.code and "second" not in pair.code


@pytest.mark.parametrize(
    "body", ["pass", "...", "raise NotImplementedError", "raise NotImplementedError('x')", "", "return 1"]
)
def test_stubs_and_one_liners_are_skipped(body):
    assert function_pairs(f'def f(x):\n    """{DOC}"""\n    {body}\n') == []


def test_the_answer_does_not_quote_the_question():
    assert function_pairs(f'def f(x):\n    """{DOC}"""\n    # {DOC}\n    y = x\n    return y\n') == []


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Reads a\n  whole file.\n\nMore.", "Reads a whole file."),
        ("Reads a whole file.\n:param x: a thing", "Reads a whole file."),
        ("Reads a whole file.\nArgs:\n  x: thing", "Reads a whole file."),
        ("Reads a whole file.\n>>> read()", "Reads a whole file."),
        ("read(x, y=3) -> str\n\nReads a whole file.", "Reads a whole file."),
        ("Reads a whole file\n==================", "Reads a whole file"),
        ("read(x, y=3)", None),
        (":param x: a thing that is read", None),
        ("Too short", None),
        ("TODO: write about this function", None),
        ("+-+-+-+ 123 456 ==> 789 {} {} {}", None),
        ("このファイルを読み込んで返す関数です。とても便利です。", None),
        ("word " * 300, None),
    ],
)
def test_descriptions(docstring, expected):
    assert description(docstring) == expected


def test_files_that_cannot_be_parsed():
    for source in (b"def f(: 'x'\n", b"\xff = 1\ndef f(): 'x'\n", b"# coding: nonsense\ndef f(): '\xe9'\n"):
        with pytest.raises((SyntaxError, ValueError)):
            function_pairs(source)
    assert function_pairs(
        f'# coding: latin-1\ndef f(x):\n    """{DOC}"""\n    y = "é"\n    return y\n'.encode("latin-1")
    )


names = st.sampled_from(["alpha", "béta", "gamma"])
strings = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20).map(repr)


@given(
    quote=st.sampled_from(['"""', "'''"]), depth=st.integers(0, 3), name=names, value=strings,
    end=st.sampled_from(["\n", "\r\n"]), more=st.sampled_from(["", "\n\n    More: é.\n"]),
)  # fmt: skip
def test_the_remaining_code_parses_to_the_same_tree(quote, depth, name, value, end, more):
    lines = [f"def {name}(x):", f"    {quote}{DOC}{more}{quote}", f"    y = {value}  # why", "    return x, y"]
    wrapped = [f"{'    ' * i}class C{i}:" for i in range(depth)]
    indented = textwrap.indent("\n".join(lines), "    " * depth).splitlines()
    source = end.join([*wrapped, *indented, ""])
    (pair,) = function_pairs(source.encode())
    plain = "\n".join([lines[0], *lines[2:]])
    assert ast.dump(ast.parse(pair.code)) == ast.dump(ast.parse(plain))
    assert "# why" in pair.code and DOC not in pair.code
