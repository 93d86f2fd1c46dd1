"""The one door for every model that a user may name: what is in the folder, and is it what the command takes?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import read_json
from spectra_nsa.models.checks import check_folder, model_checksum, resolve_folder, transformer_folder

if TYPE_CHECKING:
    from spectra_nsa.models.saved import SavedModel
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

ModelKind = Literal["spectra", "bert", "sentence", "sparse", "cross", "late", "adapter"]
SPECTRA: tuple[ModelKind, ...] = ("spectra", "bert")  # what is, or becomes, a Spectra model
DENSE: tuple[ModelKind, ...] = ("spectra", "bert", "sentence")  # what turns a text into one vector
_NAMES: dict[ModelKind, str] = {
    "spectra": "a Spectra model",
    "bert": "a BERT-architecture checkpoint",
    "sentence": "a sentence-transformers model of another architecture",
    "sparse": "a sparse encoder",
    "cross": "a cross-encoder",
    "late": "a multi-vector encoder",
    "adapter": "an adapter without its base model",
}
_CLASSES: dict[str, ModelKind] = {"SparseEncoder": "sparse", "CrossEncoder": "cross", "MultiVectorEncoder": "late"}


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model by its files, not yet opened.

    Attributes:
        name: the folder or Hub name as it was typed.
        folder: its files.
        kind: see `model_kind`.
    """

    name: str
    folder: Path
    kind: ModelKind

    @property
    def checksum(self) -> str:
        """The SHA-256 of what decides its vectors."""
        return model_checksum(self.folder)


def model_kind(folder: Path) -> ModelKind:
    """Returns what kind of model a folder holds.

    Raises:
        SpectraError: it holds none.
    """
    library = folder / "config_sentence_transformers.json"
    made_for = read_json(library).get("model_type") if library.is_file() else None
    if made_for in _CLASSES:
        return _CLASSES[made_for]
    config, modules = transformer_folder(folder) / "config.json", folder / "modules.json"
    if not config.is_file() and not modules.is_file():
        if (folder / "adapter_config.json").is_file():
            return "adapter"
        raise SpectraError(f"{folder} has neither config.json nor modules.json: it is not a model folder.")
    facts = read_json(config) if config.is_file() else {}
    if made_for is None:  # cross-encoders of before version 5 do not say what they are
        classes = [str(name) for name in facts.get("architectures") or []]
        if not modules.is_file() and any(name.endswith("ForSequenceClassification") for name in classes):
            return "cross"
    if facts.get("model_type") == "spectra_nsa":
        return "spectra"
    return "bert" if facts.get("model_type") == "bert" else "sentence"


def find_model(name: str | Path, *, accept: Sequence[ModelKind] = SPECTRA) -> ModelFolder:
    """Returns the files of a model that a user names, without opening it.

    Args:
        name: a folder or a Hub name.
        accept: the kinds that the caller can use.

    Raises:
        SpectraError: nothing is there, or it is of another kind.
    """
    folder = resolve_folder(name)
    kind = model_kind(folder)
    found = ModelFolder(name=str(name), folder=folder, kind=kind)
    if kind in accept:
        return found
    if kind == "adapter":
        raise SpectraError(
            f"{name} is {_NAMES[kind]}. Merge the two with peft's merge_and_unload, and save the result."
        )
    if kind == "sentence":
        check_folder(folder)  # which says what its architecture lacks
    *others, last = [_NAMES[one] for one in accept]
    wanted = f"{', '.join(others)} or {last}" if others else last
    raise SpectraError(f"{name} is {_NAMES[kind]}; this takes {wanted}.")


def open_model(
    name: str | Path | ModelFolder,
    *,
    accept: Sequence[ModelKind] = SPECTRA,
    convert: bool = True,
    device: str | None = None,
) -> Any:
    """Opens a model that a user names.

    Args:
        name: a folder, a Hub name, or what `find_model` returned.
        accept: the kinds that the caller can use.
        convert: whether a BERT-architecture checkpoint becomes a Spectra model with its weights; otherwise
            sentence-transformers opens it as it is.
        device: ``"cpu"``, ``"cuda"``, …; ``None`` lets torch choose.

    Returns:
        a `SpectraSentenceTransformer` for a Spectra model or a converted checkpoint; else a `SentenceTransformer`,
        `SparseEncoder` or `CrossEncoder`.

    Raises:
        SpectraError: nothing is there, it is damaged or of another kind, or the library cannot open it.
    """
    found = name if isinstance(name, ModelFolder) else find_model(name, accept=accept)
    if found.kind == "spectra":
        from spectra_nsa.models.sentence import load

        return load(found.folder, device=device)
    if found.kind == "bert" and convert:
        from spectra_nsa.models.warm_start import warm_start

        model = warm_start(found.folder)
        return model if device is None else model.to(device)
    return _open_with_library(found, device)


def open_encoder(name: str | Path) -> SavedModel | SpectraSentenceTransformer:
    """Opens a model to encode with: a saved Spectra model without transformers if that is possible.

    The vectors are the same either way, to the last bit.

    Args:
        name: a folder or a Hub name.

    Raises:
        SpectraError: see `open_model`.
    """
    found = find_model(name)
    if found.kind == "spectra":
        from spectra_nsa.models.saved import open_saved

        check_folder(found.folder)
        if (saved := open_saved(found.folder)) is not None:
            return saved
    return open_model(found)


def _open_with_library(found: ModelFolder, device: str | None) -> Any:
    """Opens a model by sentence-transformers, from local files alone."""
    import sentence_transformers
    import transformers
    from safetensors import SafetensorError

    import spectra_nsa.hf  # noqa: F401  one of our models may be inside

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    classes = {kind: name for name, kind in _CLASSES.items()}
    opener = getattr(sentence_transformers, classes.get(found.kind, "SentenceTransformer"))
    try:
        return opener(str(found.folder), device=device, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        what = "a sentence-transformers model" if found.kind in DENSE else _NAMES[found.kind]
        raise SpectraError(f"{found.name} cannot be opened as {what}: {error}") from error
