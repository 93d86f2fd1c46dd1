"""The two sides of a sparse encoder, queries and documents: each saved alone, and whether they fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_folder, check_replaceable, expand_user
from spectra_nsa.models.prompts import check_role
from spectra_nsa.models.sparse.query_side import (
    QueryWeights,
    check_same_vocabulary,
    check_static_weights,
    static_tokenizer,
)


def save_side(model: Any, role: str, folder: str | Path) -> None:
    """Writes what the texts of one role need: static weights as `QueryWeights`, else a `SparseEncoder` folder.

    `QueryWeights.load(folder).encode(texts)` needs neither torch nor transformers.

    Args:
        model: a `SpectraSparseEncoder`.
        role: ``"query"`` or ``"document"``.
        folder: a new folder, or one that this function wrote.

    Raises:
        UsageError: there is no such role, or the folder holds something else.
        SpectraError: the side is static, and its tokenizer is not a fast one.
    """
    check_role(role)
    prompt = model.prompts.get(role) or ""
    if (static := model.static(role)) is not None:
        QueryWeights(
            tokenizer=static_tokenizer(static.tokenizer, "the model"),
            weights_V=_weights(static),
            special_ids=frozenset(static.tokenizer.all_special_ids),
            prompt=prompt,
            max_active_dims=model.max_active_dims,
        ).save(folder)
        return
    path = expand_user(folder)
    check_replaceable(path, "modules.json")
    side = type(model)(
        modules=model.modules_of(role),
        prompts={role: prompt},
        default_prompt_name=role if prompt else None,
        similarity_fn_name=model.similarity_fn_name,
        max_active_dims=model.max_active_dims,
        device=str(model.device),
    )
    with atomic_folder(path) as draft:
        side.save_pretrained(str(draft), create_model_card=False)


def check_routes(model: Any, name: str | Path) -> None:
    """Checks that the tokenizers fit the static weights and each other.

    Args:
        model: a `SpectraSparseEncoder`.
        name: of the model, for the message.

    Raises:
        SpectraError: they do not.
    """
    firsts = {role: model.modules_of(role)[0] for role in model.roles}
    tokenizers: dict[str, Any] = {
        role: module.tokenizer for role, module in firsts.items() if getattr(module, "tokenizer", None) is not None
    }
    tables = {role: tokenizer.get_vocab() for role, tokenizer in tokenizers.items()}
    for role, table in tables.items():
        if (static := model.static(role)) is not None:
            check_static_weights(_weights(static), table, tokenizers[role].all_special_ids, name)
    if len(tables) == 2:
        check_same_vocabulary(tables["query"], tables["document"], name)


def check_weights(model: Any, name: str | Path) -> None:
    """Checks that all weights are finite. Attention can hide NaN in its own: the vectors would not show it.

    Args:
        model: a `SpectraSparseEncoder`.
        name: of the model, for the message.

    Raises:
        SpectraError: one is NaN or infinite.
    """
    for parameter, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise SpectraError(
                f"{name}: the weight {parameter} has NaN or infinity. Save or download the model again, or use an "
                "earlier checkpoint of its training."
            )


def _weights(static: Any) -> Any:
    return static.weight.detach().float().cpu().numpy()
