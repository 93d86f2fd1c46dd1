"""What `spectra encode`, `similarity` and `inspect` do with a sparse encoder: terms with weights."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.console import print_json
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import expand_user

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_SHOWN_TEXTS, _SHOWN_TERMS = 10, 12
Terms = list[tuple[str, float]]


def is_sparse(model: str) -> bool:
    """Returns whether a name is the folder of a sparse encoder or ``splade:NAME``. The Hub is not asked."""
    from spectra_nsa.evaluation.open import SPLADE
    from spectra_nsa.models.open import model_kind

    if model.startswith(SPLADE):
        return True
    with contextlib.suppress(SpectraError):
        return expand_user(model).is_dir() and model_kind(expand_user(model)) == "sparse"
    return False


def check_model_name(model: str) -> None:
    """Checks that a model exists here or may be a Hub name, before its texts are read. The Hub is not asked.

    Raises:
        SpectraError: it is neither.
    """
    from spectra_nsa.evaluation.open import SPLADE
    from spectra_nsa.models.checks import local_folder
    from spectra_nsa.models.sparse.names import SHORT_NAMES

    name = model.removeprefix(SPLADE)
    if name == model or name not in SHORT_NAMES:
        local_folder(name)


def check_sparse_output(output: Path | None, outputs: list[str], dim: int | None) -> None:
    """Checks the options of `encode` that a sparse encoder reads differently.

    Raises:
        UsageError: one of them is for dense vectors, or the output is a file.
    """
    if outputs != ["embedding"] or dim is not None:
        raise UsageError("a sparse encoder has a single output and no --dim. Keep the largest weights with --active N.")
    if output is not None and (output.suffix in (".npz", ".npy") or output.is_file()):
        raise UsageError(f"--output {output}: sparse rows are written to a folder, such as {output.with_suffix('')}.")


def encode_sparse(
    model: str,
    texts: list[str],
    *,
    role: str,
    active: int | None,
    batch: int,
    precision: str,
    output: Path | None,
    as_json: bool,
    quarantined: int,
) -> None:
    """Encodes texts; prints their terms, or writes CSR rows with vocabulary and texts (`index.sparse.exchange`).

    Args:
        model: a folder or Hub name.
        texts: at least one.
        role: ``"query"`` or ``"document"``.
        active: the most terms of a text; ``None`` for all.
        batch: texts per batch.
        precision: see `resolve_precision`.
        output: the folder to write; ``None`` to print the terms.
        as_json: whether to print JSON.
        quarantined: rows of the source that were dropped.
    """
    encoder = _open(model)
    _warn_cut(encoder, texts, role, model)
    rows = encoder.encode_csr(texts, role, batch_size=batch, max_active_dims=active, precision=precision)
    vocabulary = terms_by_id(encoder, rows.shape[1])
    if output is not None:
        from spectra_nsa.index.records import Record
        from spectra_nsa.index.sparse.exchange import SparseRows, write_rows

        records = [Record(id=str(number), text=text) for number, text in enumerate(texts)]
        write_rows(output, SparseRows(rows=rows, vocabulary=vocabulary, records=records))
    mean = rows.nnz / len(texts)
    if as_json:
        document = {"schema": 1, "model": model, "texts": texts, "output": str(output) if output else None}
        document |= {"quarantined": quarantined, "role": role, "shape": list(rows.shape), "active": mean}
        print_json(document | {"terms": None if output else [terms_of(row, vocabulary) for row in rows]})
        return
    target = f" → {output}" if output else ""
    print(f"sparse: {rows.shape[0]} × {rows.shape[1]}, {mean:.1f} active terms per text{target}")
    for text, row in zip(texts[:_SHOWN_TEXTS], rows, strict=False) if output is None else ():
        print(f"  {text[:60]!r}\n    {_shown(terms_of(row, vocabulary))}")


def sparse_similarity(model: str, first: str, second: str, *, as_json: bool) -> None:
    """Prints the dot product of a query and a document, and what each shared term adds."""
    encoder = _open(model)
    _warn_cut(encoder, [first], "query", model)
    _warn_cut(encoder, [second], "document", model)
    query, document = encoder.encode_csr([first], "query"), encoder.encode_csr([second], "document")
    shared = query.multiply(document).tocsr()
    terms = terms_of(shared, terms_by_id(encoder, shared.shape[1]))
    value = float(shared.sum())
    if as_json:
        document_ = {"schema": 1, "model": model, "texts": [first, second], "similarity": value}
        print_json(document_ | {"function": "dot", "active": [query.nnz, document.nnz], "terms": terms})
        return
    print(f"{value:.4f}  (dot product of a query with {query.nnz} terms and a document with {document.nnz})")
    print(f"  {_shown(terms) or 'no shared term'}")


def inspect_sparse(model: str, *, as_json: bool) -> None:
    """Prints what the files of a sparse encoder say, without loading it."""
    from spectra_nsa.models.sparse.facts import sparse_facts
    from spectra_nsa.workflows.index_models import find_any

    facts = sparse_facts(find_any(model, ("sparse",)).folder)
    if as_json:
        print_json({"schema": 1, "model": model} | facts, indent=2)
        return
    print(
        f"{model}: a sparse encoder, {facts['kind'].replace('_', '-')}, {facts['parameters'] / 1e6:,.1f} M parameters"
    )
    for side in ("query", "document"):
        route = facts[side]
        limit = f", at most {route['max_length']:,} tokens" if route["max_length"] else ""
        print(f"{side:<10} {', '.join(route['modules'])}: {route['parameters']:,} parameters{limit}")
        if route["prompt"]:
            print(f"{'':<10} prompt {route['prompt']!r}")
    print(f"vocabulary {facts['vocabulary']:,} terms; similarity {facts['similarity']}")
    if facts["max_active_dims"]:
        print(f"terms      at most {facts['max_active_dims']:,} per text")


def terms_by_id(encoder: Any, width: int) -> list[str]:
    """Returns the V terms of an encoder by id; ``""`` for ids without one."""
    names = {number: token for token, number in encoder.tokenizer.get_vocab().items()}
    return [names.get(number, "") for number in range(width)]


def terms_of(row: csr_matrix, vocabulary: list[str]) -> Terms:
    """Returns the terms of a row with their weights, the strongest first."""
    pairs = zip(row.indices.tolist(), row.data.tolist(), strict=True)
    return [(vocabulary[number], weight) for number, weight in sorted(pairs, key=lambda pair: (-pair[1], pair[0]))]


def _open(model: str) -> Any:
    """Opens a sparse encoder, or a masked LM with SPLADE pooling."""
    from spectra_nsa.workflows.index_models import find_any, open_any

    return open_any(find_any(model, ("sparse",)))


def _warn_cut(encoder: Any, texts: list[str], role: str, name: str) -> None:
    from spectra_nsa.workflows.cut_texts import warn_cut

    warn_cut(encoder, texts, role, name)


def _shown(terms: Terms) -> str:
    more = f"  … {len(terms) - _SHOWN_TERMS} more" if len(terms) > _SHOWN_TERMS else ""
    return "  ".join(f"{term} {weight:.2f}" for term, weight in terms[:_SHOWN_TERMS]) + more
