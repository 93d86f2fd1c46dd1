"""Opening any model that a user names: the kind of model in a folder, and whether a command accepts it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spectra_nsa.core.console import say_loading
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import read_json_object
from spectra_nsa.models.checks import (
    adapter_error,
    check_folder,
    is_adapter,
    model_checksum,
    resolve_folder,
    transformer_folder,
)
from spectra_nsa.tokens.limits import capped_length, check_vocabulary, learned_positions

if TYPE_CHECKING:
    from spectra_nsa.models.saved import SavedModel
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

ModelKind = Literal["spectra", "bert", "sentence", "sparse", "cross", "late", "adapter"]
SPECTRA: tuple[ModelKind, ...] = ("spectra", "bert")  # kinds that are, or are converted to, a Spectra model
DENSE: tuple[ModelKind, ...] = ("spectra", "bert", "sentence")  # kinds that give one vector per text
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
    """The files of a model that is not opened yet.

    Attributes:
        name: the folder or Hub name, as the user wrote it.
        folder: the local folder of its files.
        kind: see `model_kind`.
    """

    name: str
    folder: Path
    kind: ModelKind

    @property
    def checksum(self) -> str:
        """The SHA-256 of the files that decide its vectors."""
        return model_checksum(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        """The `config.json` of its transformer."""
        facts: dict[str, Any] = read_json_object(transformer_folder(self.folder) / "config.json")
        return facts


def model_kind(folder: Path) -> ModelKind:
    """Returns the kind of model in a folder.

    Raises:
        SpectraError: the folder holds no model.
    """
    library = folder / "config_sentence_transformers.json"
    declared = read_json_object(library).get("model_type") if library.is_file() else None
    if isinstance(declared, str) and declared in _CLASSES:
        return _CLASSES[declared]
    config, modules = transformer_folder(folder) / "config.json", folder / "modules.json"
    if is_adapter(transformer_folder(folder)):
        return "adapter"
    if not config.is_file() and not modules.is_file():
        raise SpectraError(f"{folder} is not a model folder: it has neither config.json nor modules.json.")
    facts = read_json_object(config) if config.is_file() else {}
    if declared is None:  # cross-encoders saved before version 5 do not declare their type
        listed = facts.get("architectures")
        classes = [str(name) for name in listed] if isinstance(listed, list) else []
        if not modules.is_file() and any(name.endswith("ForSequenceClassification") for name in classes):
            return "cross"
    if facts.get("model_type") == "spectra_nsa":
        return "spectra"
    return "bert" if facts.get("model_type") == "bert" else "sentence"


def find_model(name: str | Path, *, accept: Sequence[ModelKind] = SPECTRA, complete: bool = True) -> ModelFolder:
    """Returns the files of a model that a user names, without opening it.

    Args:
        name: a folder or a Hub name.
        accept: the kinds that the caller can use.
        complete: whether to check that the weights of a Spectra model or checkpoint are complete, which loads torch.

    Raises:
        SpectraError: there is no such model, it is of another kind, or its weights are missing or damaged.
    """
    folder = resolve_folder(name)
    kind = model_kind(folder)
    if kind in accept:
        if kind in SPECTRA and complete:
            check_folder(folder)
        return ModelFolder(name=str(name), folder=folder, kind=kind)
    if kind == "adapter":
        raise adapter_error(transformer_folder(folder))
    if kind == "sentence":
        check_folder(folder)  # raises an error about its architecture
    *names, last = [_NAMES[accepted] for accepted in accept]
    wanted = f"{', '.join(names)} or {last}" if names else last
    raise SpectraError(f"{name} is {_NAMES[kind]}, but this command needs {wanted}.")


def open_model(
    name: str | Path | ModelFolder,
    *,
    accept: Sequence[ModelKind] = SPECTRA,
    convert: bool = True,
    device: str | None = None,
) -> Any:
    """Opens a model that a user names. A line on standard error says so.

    Args:
        name: a folder, a Hub name, or what `find_model` returned.
        accept: the kinds that the caller can use.
        convert: whether a BERT-architecture checkpoint becomes a Spectra model with its weights; otherwise
            sentence-transformers opens it as it is.
        device: ``"cpu"``, ``"cuda"``, …; ``None`` lets torch choose.

    Returns:
        a `SpectraSentenceTransformer` for a Spectra model or a converted checkpoint, a `SpectraSparseEncoder` for a
        sparse encoder; else a `SentenceTransformer` or `CrossEncoder`.

    Raises:
        SpectraError: there is no such model, it is damaged or of another kind, or the library cannot open it.
    """
    files = name if isinstance(name, ModelFolder) else find_model(name, accept=accept)
    say_loading(files.name)
    return _open(files, convert=convert, device=device)


def _open(files: ModelFolder, *, convert: bool = True, device: str | None = None) -> Any:
    if files.kind == "spectra":
        from spectra_nsa.models.sentence import load

        return load(files.folder, device=device)
    if files.kind == "bert" and convert:
        from spectra_nsa.models.warm_start import warm_start

        model = warm_start(files.folder)
        return model if device is None else model.to(device)
    return _open_with_library(files, device)


def load(folder_or_name: str | Path, *, device: str | None = None, **kwargs: Any) -> Any:
    """Opens a saved model: a Spectra model or a sparse encoder.

    Args:
        folder_or_name: a folder that `save_pretrained` or a run wrote, or a Hub name.
        device: ``"cpu"``, ``"cuda"``, …; ``None`` lets torch choose.
        **kwargs: passed to `SentenceTransformer`; a sparse encoder takes none.

    Returns:
        a `SpectraSentenceTransformer`, or a `SpectraSparseEncoder`.

    Raises:
        UsageError: an argument that the model does not take.
        SpectraError: there is no model, a file is damaged, or it is another kind of model.
    """
    from spectra_nsa.models.sentence import load as load_dense

    folder = resolve_folder(folder_or_name)
    settings = folder / "config_sentence_transformers.json"
    if not settings.is_file() or read_json_object(settings).get("model_type") != "SparseEncoder":
        return load_dense(folder_or_name, device=device, **kwargs)
    if kwargs:
        raise UsageError(f"{folder_or_name} is a sparse encoder, which takes no {', '.join(kwargs)}.")
    return _open_with_library(ModelFolder(name=str(folder_or_name), folder=folder, kind="sparse"), device)


def open_encoder(name: str | Path | ModelFolder) -> SavedModel | SpectraSentenceTransformer:
    """Opens a model for encoding; a saved Spectra model is opened without transformers if possible.

    The vectors are bit-identical either way.

    Args:
        name: a folder, a Hub name, or what `find_model` returned.

    Raises:
        SpectraError: see `open_model`.
    """
    files = name if isinstance(name, ModelFolder) else find_model(name)
    say_loading(files.name)
    if files.kind == "spectra":
        from spectra_nsa.models.saved import open_saved

        if (saved := open_saved(files.folder)) is not None:
            return saved
    return _open(files)


def _open_with_library(files: ModelFolder, device: str | None) -> Any:
    """Opens a model with sentence-transformers, from local files only."""
    import sentence_transformers
    import transformers

    import spectra_nsa.hf  # noqa: F401  registers Spectra models, which may be one of its modules

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    classes = {kind: name for name, kind in _CLASSES.items()}
    opener = getattr(sentence_transformers, classes.get(files.kind, "SentenceTransformer"))
    if files.kind == "sparse":
        from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder as opener
    try:
        model = opener(str(files.folder), device=device, local_files_only=True)
    except Exception as error:  # each library has its own
        what = "a sentence-transformers model" if files.kind in DENSE else _NAMES[files.kind]
        raise SpectraError(f"{files.name} cannot be opened as {what}: {error}") from error
    _check_limits(model, files.name)
    if files.kind == "sparse":
        from spectra_nsa.models.sparse.sides import check_routes, check_weights

        check_weights(model, files.name)
        check_routes(model, files.name)
    return model


def _check_limits(model: Any, name: str) -> None:
    """Caps a model's length limit at its learned positions, and checks that each token has a vector.

    Special tokens without a vector are tolerated: some models list tokens of other modalities.

    Raises:
        SpectraError: a token has no vector.
    """
    from torch import nn

    if (transformer := model.transformers_model) is None:
        return
    if (most := learned_positions(transformer)) is not None:
        model.max_seq_length = capped_length(model.max_seq_length, most, name)
    tokens = transformer.get_input_embeddings()
    if isinstance(tokens, nn.Embedding) and model.tokenizer is not None:
        ids = set(model.tokenizer.get_vocab().values()) - set(model.tokenizer.all_special_ids)
        check_vocabulary(ids, tokens.num_embeddings, name)
