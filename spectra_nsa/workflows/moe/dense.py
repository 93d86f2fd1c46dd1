"""A dense model from one expert of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.files import atomic_folder, check_replaceable
from spectra_nsa.models.experts.upcycle import make_dense
from spectra_nsa.models.open import find_model, open_model


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
    with atomic_folder(Path(output)) as folder:
        opened.save_pretrained(str(folder))
    return {
        "folder": str(output),
        "expert": expert,
        "parameters": {"before": before, "after": opened.spectra.num_parameters()},
    }


def check_output(output: str | Path, inputs: Sequence[str]) -> None:
    """Checks that a model can be written to a folder.

    Raises:
        UsageError: it is one of the models that are read, or holds other files.
    """
    for name in inputs:
        if Path(output).resolve() in (Path(name).resolve(), (Path(name) / "model").resolve()):
            raise UsageError(f"--output {output} is the model that is read, which would be lost. Name another folder.")
    check_replaceable(output, "modules.json")
