"""Texts that are longer than a model reads: how many there are, and a line on standard error that says so."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from spectra_nsa.models.prompts import role_prompt
from spectra_nsa.models.sparse.query_side import QueryWeights

_BATCH = 1_000
_SPARE = 8  # bytes: a text this much shorter than the limit in tokens is not tokenized


def warn_cut(model: Any, texts: Sequence[str], role: str | None, name: str) -> None:
    """Prints a warning if a model reads only the beginning of some texts.

    Args:
        model: a `QueryWeights`, a `SavedModel`, a `Runtime`, or a sentence-transformers model, dense or sparse.
        texts: the texts to encode.
        role: ``"query"`` or ``"document"``; ``None`` for texts with the default prompt.
        name: the model, for the message.
    """
    count, limit = count_cut(model, texts, role)
    if not count:
        return
    what = role or "text"
    if len(texts) == 1:
        which, rest = f"the {what} is", "the rest is ignored"
    else:
        plural = "queries" if what == "query" else f"{what}s"
        which, rest = f"{count:,} of {len(texts):,} {plural} are", "the rest of them is ignored"
    print(f"spectra: warning: {which} longer than the {limit:,} tokens that {name} reads: {rest}.", file=sys.stderr)


def count_cut(model: Any, texts: Sequence[str], role: str | None) -> tuple[int, int]:
    """Counts the texts that a model cuts.

    Args:
        model, texts, role: see `warn_cut`.

    Returns:
        how many there are, and the limit in tokens; zeros if the model has no limit or no fast tokenizer.
    """
    tokenizer, limit, special = _tokenizer(model, role)
    if tokenizer is None or not isinstance(limit, int) or limit > 10**9:
        return 0, 0
    prompt = _prompt(model, role)
    least = limit - len(prompt.encode("utf-8", "surrogatepass")) - _SPARE
    long = [prompt + text for text in texts if len(text.encode("utf-8", "surrogatepass")) > least]
    if not long:
        return 0, limit
    plain = type(tokenizer).from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    count = 0
    for start in range(0, len(long), _BATCH):
        encodings = plain.encode_batch_fast(long[start : start + _BATCH], add_special_tokens=special)
        count += sum(len(encoding) > limit for encoding in encodings)
    return count, limit


def _tokenizer(model: Any, role: str | None) -> tuple[Any, Any, bool]:
    """Returns the tokenizer of the library `tokenizers`, the limit, and whether special tokens count."""
    if isinstance(model, QueryWeights):
        truncation = model.tokenizer.truncation
        return model.tokenizer, truncation["max_length"] if truncation else None, False
    if (backend := getattr(model, "text_tokenizer", None)) is not None:  # a `SavedModel` or `Runtime`
        return backend, model.max_seq_length, True
    modules_of = getattr(model, "modules_of", None)
    first = model if modules_of is None else modules_of(role)[0]
    tokenizer: Any = getattr(first, "tokenizer", None)
    if modules_of is not None and model.static(role) is not None:
        return getattr(tokenizer, "backend_tokenizer", None), tokenizer.model_max_length, False
    return getattr(tokenizer, "backend_tokenizer", None), getattr(first, "max_seq_length", None), True


def _prompt(model: Any, role: str | None) -> str:
    if isinstance(model, QueryWeights):
        return model.prompt
    if role is None:
        return model.prompts.get(model.default_prompt_name) or ""
    return role_prompt(model.prompts, model.default_prompt_name, role)
