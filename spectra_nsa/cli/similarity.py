"""`spectra similarity`: the cosine of two texts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spectra_nsa.cli.encode_sparse import check_sparse_output, is_sparse, sparse_similarity
from spectra_nsa.cli.texts import check_not_blank, open_for
from spectra_nsa.core.console import print_json


def similarity_command(
    model: Annotated[str, typer.Argument(help="A model folder, or a Hub name of a BERT-architecture checkpoint.")],
    first: Annotated[str, typer.Argument(help="The first text.")],
    second: Annotated[str, typer.Argument(help="The second text.")],
    dim: Annotated[int | None, typer.Option(min=1, help="Truncate to this many leading dimensions.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the cosine similarity of two texts; for a sparse encoder the dot product of a query and a document.

    Example: spectra similarity runs/quickstart/model "open a file" "read the contents of a path"
    """
    check_not_blank(first, second)
    if is_sparse(model):
        check_sparse_output(None, ["embedding"], dim)
        sparse_similarity(model, first, second, as_json=as_json)
        return
    from spectra_nsa.metrics.finite import check_finite
    from spectra_nsa.runtime import Runtime
    from spectra_nsa.workflows.cut_texts import warn_cut

    texts = [first, second]
    encoder = open_for(model, dim, ["embedding"])
    warn_cut(encoder, texts, None, model)
    options: dict[str, Any] = {} if isinstance(encoder, Runtime) else {"precision": "fp32"}
    vectors = encoder.encode(texts, truncate_dim=dim, normalize_embeddings=True, **options)
    check_finite(vectors, model)
    value = float(vectors[0] @ vectors[1])
    if as_json:
        print_json({"schema": 1, "model": model, "texts": [first, second], "similarity": value})
    else:
        print(f"{value:.4f}")
