"""A dense model from one expert of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.files import atomic_folder, check_replaceable
from spectra_nsa.models.experts.upcycle import make_dense
from spectra_nsa.models.open import find_model, open_model
from spectra_nsa.models.sentence import SpectraSentenceTransformer, build
from spectra_nsa.training.runs.model_card import public_name, write_origin


def recover_dense(model: str, output: str | Path, *, expert: int = 0) -> dict[str, Any]:
    """Writes the dense model that has one expert of each layer as its feed-forward network.

    Its binary codes and anomaly score were fitted to the vectors of all experts; fit them again if you use them.

    Args:
        model: the folder or Hub name of a saved model with experts.
        output: the folder to write.
        expert: its number, from 0.

    Returns:
        ``folder``, ``expert``, and the numbers of ``parameters`` before and after.

    Raises:
        UsageError: the folder cannot be replaced, or there are fewer experts.
        SpectraError: there is no such model, or it has no experts.
    """
    check_output(output, [model])
    opened = open_model(find_model(model, accept=("spectra",)))
    before = opened.spectra.num_parameters()
    make_dense(opened, expert)
    save_changed(opened, output, f"expert {expert} of each layer of {public_name(model)}")
    return {
        "folder": str(output),
        "expert": expert,
        "parameters": {"before": before, "after": opened.spectra.num_parameters()},
    }


def save_changed(model: SpectraSentenceTransformer, output: str | Path, base: str) -> None:
    """Saves a model that was made from others, with a card that says so in place of theirs.

    Args:
        model: to save.
        output: the folder.
        base: what it was made from.
    """
    anew = build(
        model.spectra,
        model.tokenizer,
        max_seq_length=model.max_seq_length,
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
        similarity=model.similarity_fn_name,
    )
    with atomic_folder(Path(output)) as folder:
        anew.save_pretrained(str(folder))
        write_origin(folder, base)


def check_output(output: str | Path, inputs: Sequence[str]) -> None:
    """Checks that a model can be written to a folder.

    Raises:
        UsageError: it is one of the models that are read, or holds other files.
    """
    for name in inputs:
        if Path(output).resolve() in (Path(name).resolve(), (Path(name) / "model").resolve()):
            raise UsageError(f"--output {output} is the model that is read, which would be lost. Name another folder.")
    check_replaceable(output, "modules.json")
