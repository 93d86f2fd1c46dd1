"""Checks of model folders before anything is built: kind, completeness, shapes of the weights, checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.cache import remembered_sha256
from spectra_nsa.core.errors import SpectraError, opening
from spectra_nsa.core.files import expand_user, read_json_object
from spectra_nsa.core.starter import HUB_NAME, starter_checkpoint

if TYPE_CHECKING:
    from spectra_nsa.heads.spec import ModelSpec

SUPPORTED = ("bert", "spectra_nsa")
_MODEL_FILES = ("config.json", "modules.json", "0_Transformer", "tokenizer.json")
_CHECKSUMMED = {".safetensors", ".bin", ".json", ".txt", ".model"}
_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_EXPORTS = {"onnx", "openvino", "torch", "query_side", "export.json"}  # what `spectra export` adds to a folder
EXAMPLES = "all-MiniLM-L6/L12, BGE v1.5, E5 v2, GTE v1, BERT"


def resolve_folder(folder_or_name: str | Path, *, revision: str | None = None) -> Path:
    """Returns the local folder of a model: the folder itself, or the snapshot of a Hub name (offline from the cache).

    Raises:
        SpectraError: there is no such folder, and the Hub does not provide the name.
    """
    folder, name = local_folder(folder_or_name), str(folder_or_name)
    if folder is not None:
        return folder
    if name == HUB_NAME and revision is None:
        with contextlib.suppress(SpectraError):  # not on this machine: ask the Hub
            return starter_checkpoint()[0]
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, revision=revision, ignore_patterns=["onnx/*", "openvino/*", "*.h5", "*.ot"])
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise _hub_error(name, error) from error


def _hub_error(name: str, error: Exception) -> SpectraError:
    """Returns why a Hub name gives no model, and what to do."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError as NoSuchModel

    if isinstance(error, LocalEntryNotFoundError):  # not cached, and no connection
        return SpectraError(
            f"{name} is neither a folder here nor in the Hub's cache, and the Hub could not be reached. Check the name "
            "and the connection (and HF_HUB_OFFLINE), or download the model elsewhere and name its folder."
        )
    if isinstance(error, GatedRepoError):
        return SpectraError(f"{name} is gated on the Hub: accept its terms there and log in (hf auth login).")
    if isinstance(error, (NoSuchModel, HFValidationError)):
        return SpectraError(
            f"{name} is neither a folder here nor a model on the Hub. Check the name; a private model needs a login "
            "(hf auth login)."
        )
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return SpectraError(f"{name} is no folder here, and could not be loaded from the Hub: {reason}")


def local_folder(folder_or_name: str | Path, key: str | None = None) -> Path | None:
    """Returns the named folder, complete or not, or ``None`` if the name can only be a Hub name; does not ask the Hub.

    Args:
        folder_or_name: a folder or a Hub name.
        key: the recipe key or option that names it, for the message; ``None`` if that is obvious.

    Raises:
        SpectraError: it is neither, or it is the folder of a run, which contains a model.
    """
    path, name = expand_user(folder_or_name), str(folder_or_name)
    if path.is_dir():
        if not any((path / file).exists() for file in _MODEL_FILES):
            _refuse_run(path)
        return path
    if path.exists() or not _may_be_hub_name(name):
        reason = "is not a model folder" if path.exists() else "does not exist, so it is not a model folder"
        raise SpectraError(
            f"{f'{key}: ' if key else ''}{name} {reason}. Name the folder of a saved model, or a Hub name "
            "such as sentence-transformers/all-MiniLM-L6-v2."
        )
    return None


def names_model(word: str) -> bool:
    """Returns whether a word is an existing folder, or the Hub name of a model that is on this machine.

    The Hub is not asked.
    """
    with contextlib.suppress(SpectraError):  # a query may be too long for a path
        if expand_user(word).is_dir() or word == HUB_NAME:
            return True
    if not _may_be_hub_name(word) or any(map(str.isspace, word)):
        return False
    from huggingface_hub.constants import HF_HUB_CACHE

    return (Path(HF_HUB_CACHE) / f"models--{word.replace('/', '--')}").is_dir()


def check_tokenizer_name(folder_or_name: str, key: str = "tokenizer") -> None:
    """Checks that a tokenizer's folder exists, complete or not, or that the name can only be a Hub name.

    The Hub is not asked.

    Args:
        folder_or_name: a folder or a Hub name.
        key: the recipe key or option that names it, for the message.

    Raises:
        SpectraError: it is neither, or it is the folder of a run, which contains a model.
    """
    path = expand_user(folder_or_name)
    if not path.is_dir() and (path.exists() or not _may_be_hub_name(folder_or_name)):
        if path.exists():
            raise SpectraError(f"{key}: {folder_or_name} is a file. Name the folder of a tokenizer.")
        raise SpectraError(
            f"{key}: {folder_or_name} does not exist. Train one with spectra tokenizer train TEXTS --output "
            f"{folder_or_name}, or name a checkpoint that has one, such as google-bert/bert-base-uncased."
        )
    local_folder(folder_or_name)


def _may_be_hub_name(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _refuse_run(folder: Path) -> None:
    if any((folder / "model" / file).exists() for file in _MODEL_FILES):
        raise SpectraError(f"{folder} is not a model folder, but contains one. Name {folder / 'model'}.")
    if (folder / "recipe.yaml").is_file():
        raise SpectraError(
            f"{folder} is a run without a final model. Resume it (--resume {folder}), or name one of its "
            f"checkpoints: {folder / 'checkpoints' / 'step-N'}."
        )


def is_adapter(folder: Path) -> bool:
    """Returns whether a folder holds an adapter, such as LoRA's, without the weights of its base model."""
    if not (folder / "adapter_config.json").is_file():
        return False
    return not (folder / "config.json").is_file() or not any((folder / name).is_file() for name in _WEIGHTS)


def adapter_error(folder: Path) -> SpectraError:
    """Returns the error for an adapter: what it belongs to, and how to merge it."""
    facts = read_json_object(folder / "adapter_config.json")
    base = facts.get("base_model_name_or_path") or "BASE"
    return SpectraError(
        f"{folder} is an adapter ({facts.get('peft_type') or 'peft'}) of {base} without its base model. Merge it with "
        f"peft and name the result: PeftModel.from_pretrained(AutoModel.from_pretrained({base!r}), {str(folder)!r})"
        ".merge_and_unload().save_pretrained(FOLDER), and save the tokenizer there too."
    )


def check_folder(folder: Path) -> str:
    """Returns a folder's `model_type`, after checking that its weights are complete.

    Raises:
        SpectraError: there is no config, the architecture is not supported, or weights are missing or damaged.
    """
    model_folder, folder = folder, transformer_folder(folder)
    if is_adapter(folder):
        raise adapter_error(folder)
    if not (folder / "config.json").is_file():
        if (model_folder / "modules.json").is_file():
            raise SpectraError(
                f"{model_folder} is a sentence-transformers model without a transformer, such as a static model. "
                "It has no layers to start from. Use it for search, for mining (spectra mine --model) or as a teacher "
                "(distill.teachers)."
            )
        raise SpectraError(f"{folder} is not a model folder: it has no config.json.")
    config = read_json_object(folder / "config.json")
    kind = config.get("model_type")
    if kind not in SUPPORTED:
        raise SpectraError(
            f"{folder} holds a model of type {kind!r}. Supported: Spectra models and BERT-architecture checkpoints "
            f"(model_type bert), such as {EXAMPLES}."
        )
    shapes = weight_shapes(folder)
    if kind == "spectra_nsa":
        from spectra_nsa.heads.spec import ModelSpec

        _check_weight_shapes(folder, shapes, ModelSpec.from_config(config))
    elif shapes is not None:
        _check_bert_sizes(folder, shapes, config)
    return str(kind)


def model_checksum(folder: Path) -> str:
    """Returns the SHA-256 of the files that decide a model's vectors: weights, tokenizer, modules, prompts.

    It does not depend on the folder's path, nor on exports that lie beside the model.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _CHECKSUMMED and path.is_file() and _EXPORTS.isdisjoint(path.relative_to(folder).parts)
    )
    facts = [[path.relative_to(folder).as_posix(), remembered_sha256(path)] for path in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def transformer_folder(folder: Path) -> Path:
    """Returns the folder of the transformer's files, which old sentence-transformers folders keep one level down."""
    inner = folder / "0_Transformer"
    return inner if not (folder / "config.json").is_file() and inner.is_dir() else folder


def has_weights(folder: Path) -> bool:
    """Returns whether a model folder has weights, in whatever form."""
    return any((transformer_folder(folder) / name).is_file() for name in _WEIGHTS)


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Returns the shapes of the saved weights by name; ``None`` if there is only a `pytorch_model.bin`.

    Raises:
        SpectraError: there are no weights, or a file is truncated or damaged.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        with opening(folder):
            files = sorted({folder / name for name in read_json_object(index)["weight_map"].values()})
    else:
        files = [folder / "model.safetensors"]
    if not all(file.is_file() for file in files):
        if (folder / "pytorch_model.bin").is_file():
            return None
        if (folder / "pytorch_model.bin.index.json").is_file():
            raise SpectraError(
                f"{folder} holds pickled weights in several files, which are not read. Save the model as safetensors."
            )
        if (folder / "export.json").is_file():
            raise SpectraError(
                f"{folder} holds exported graphs without the model. Open them with spectra_nsa.runtime.Runtime (or "
                "SparseRuntime); spectra encode and similarity read those of dense models."
            )
        missing = next(file for file in files if not file.is_file())
        raise SpectraError(
            f"{missing} is missing, so the model folder has no weights. Download or save the model again."
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="numpy") as weights:
                for name in weights.keys():  # noqa: SIM118 (a handle, not a dict)
                    shapes[name] = tuple(weights.get_slice(name).get_shape())
        except (SafetensorError, OSError, ValueError) as error:
            raise SpectraError(
                f"{file} is damaged ({error}). Download or save the model again; a truncated copy is the usual cause."
            ) from error
    return shapes


def _check_bert_sizes(folder: Path, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> None:
    """Checks that a BERT's config has the sizes of its weights, before a library makes room for what it asks for."""
    layers = config.get("num_hidden_layers", 12)
    if type(layers) is not int or not 0 < layers <= 10_000:
        raise SpectraError(f"{folder}: config.json says num_hidden_layers {layers!r:.80}, which no model can have.")
    for name, shape in shapes.items():
        for table, rows in (("word", "vocab_size"), ("position", "max_position_embeddings")):
            stated = (config.get(rows, *shape[:1]), config.get("hidden_size", *shape[1:2]))
            if name.endswith(f"embeddings.{table}_embeddings.weight") and stated != shape:
                raise SpectraError(f"{folder}: config.json says that {name} is {stated!r:.80}, but it is {shape}.")


def _check_weight_shapes(folder: Path, shapes: dict[str, tuple[int, ...]] | None, spec: ModelSpec) -> None:
    """Checks that a folder's weights match its config: transformers would initialize missing ones at random."""
    from spectra_nsa.heads.outputs import empty_outputs

    if shapes is None:
        raise SpectraError(
            f"{folder} holds pickled weights, but Spectra models need model.safetensors. Save the model again."
        )
    expected = {name: tuple(value.shape) for name, value in empty_outputs(spec).state_dict().items()}
    shapes = {name.removeprefix("model."): shape for name, shape in shapes.items()}
    for name, shape in expected.items():
        if shapes.get(name) != shape:
            problem = f"has shape {shapes[name]}" if name in shapes else "is missing"
            raise SpectraError(
                f"{folder}: weight {name} {problem}, but config.json needs shape {shape}. "
                "Weights and config belong to different models; restore both from the same model."
            )
