"""A recipe describes a training run: a YAML file, `key=value` overrides, and a size preset's defaults below both."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from spectra_nsa.config.data_section import DataSection
from spectra_nsa.config.loss_sections import DistillSection, LossSection
from spectra_nsa.config.overrides import read_override, set_value
from spectra_nsa.config.presets import DEFAULT, load_preset
from spectra_nsa.config.renamed_keys import current_key, with_current_keys
from spectra_nsa.config.section import Section
from spectra_nsa.config.sections import (
    BackupSection,
    ModelSection,
    MonitorSection,
    PretrainSection,
    TrainSection,
)
from spectra_nsa.config.sparse_section import SparseSection
from spectra_nsa.config.yaml_values import annotation_of, models_in, parse_yaml
from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name


class Recipe(Section):
    """A complete training run."""

    name: str | None = Field(None, description="the run's folder under `output`; null makes one from date and time")
    output: str = Field("runs", description="the folder of all runs")
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    loss: LossSection = LossSection()
    distill: DistillSection = DistillSection()
    train: TrainSection = TrainSection()
    monitor: MonitorSection = MonitorSection()
    backup: BackupSection = BackupSection()
    pretrain: PretrainSection | None = Field(None, description="masked-LM pretraining; null for training on pairs")
    sparse: SparseSection | None = Field(
        None, description="a section for learned sparse encoders; null for dense training"
    )

    @field_validator("name", mode="before")
    @classmethod
    def _number_as_text(cls, name: Any) -> Any:
        return str(name) if isinstance(name, (int, float)) else name

    def to_yaml(self) -> str:
        """Returns YAML that `load_recipe` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


# Names that transformers and others use for our keys.
_SYNONYMS = {
    "learning_rate": "lr", "batch_size": "batch", "per_device_train_batch_size": "batch", "num_train_epochs": "epochs",
    "gradient_accumulation_steps": "accumulation", "warmup_ratio": "warmup",
    "lr_scheduler_type": "schedule", "max_seq_length": "max_length", "save_steps": "checkpoint_every",
    "eval_steps": "evaluate_every", "logging_steps": "log_every", "save_total_limit": "keep_checkpoints",
    "early_stopping_patience": "patience", "bf16": "precision", "fp16": "precision",
    "mini_batch_size": "cached_pass_tokens",
    "multiple_negatives_ranking": "semantic", "mnrl": "semantic", "infonce": "semantic", "info_nce": "semantic",
    "cosine_similarity": "cosine", "contrastive_loss": "contrastive", "triplet_loss": "triplet",
}  # fmt: skip
_SECTIONS = ("model", "data", "loss", "distill", "train", "monitor", "backup")  # those that may be empty in a file


def load_recipe(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
) -> Recipe:
    """Reads a recipe. Later wins: a size preset's training defaults, the file, `flags`, `overrides`.

    Args:
        path: a YAML file; ``None`` starts from the defaults.
        overrides: ``["train.lr=1e-4", …]``; values are YAML.
        flags: dotted key → value, from command-line options; ``None`` values are skipped.

    Raises:
        UsageError: an unknown key (the message offers the nearest one), an invalid value, or a malformed override.
        SpectraError: the file cannot be read or is not YAML.
    """
    values = with_current_keys(_read(Path(path))) if path is not None else {}
    for key, value in (flags or {}).items():
        if value is not None:
            set_value(values, current_key(key), value)
    for override in overrides:
        key, value = read_override(override, Recipe)
        set_value(values, current_key(key), value)
    values = {key: {} if value is None and key in _SECTIONS else value for key, value in values.items()}
    size = (values.get("model") or {}).get("size") if isinstance(values.get("model"), dict) else None
    if size is not None:
        defaults = load_preset(str(size)).train
        train = values.get("train") or {}
        values["train"] = {**defaults, **train} if isinstance(train, dict) else train
    return _validated(values, str(path or "the recipe"))


def load_run_recipe(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
) -> Recipe:
    """Reads a recipe as `load_recipe` does. Without `model.start` and `model.size` the size is the default one,
    but for a sparse encoder, which has a default start.

    Raises:
        UsageError: both are set, and what `load_recipe` raises.
        SpectraError: see `load_recipe`.
    """
    recipe = load_recipe(path, overrides, flags=flags)
    if recipe.model.size is not None and recipe.model.start is not None:
        raise UsageError("model.size trains from scratch and model.start is a warm start: set one of them.")
    if recipe.model.size is None and recipe.model.start is None and recipe.sparse is None:
        return load_recipe(path, overrides, flags={**(flags or {}), "model.size": DEFAULT})
    return recipe


def with_values(recipe: Recipe, values: Mapping[str, Any], *, where: str = "the recipe") -> Recipe:
    """Returns a copy of a recipe with some values changed.

    Args:
        recipe: not changed.
        values: dotted key → value.
        where: the origin of the values in error messages.

    Raises:
        UsageError: an unknown key, or an invalid value.
    """
    changed = recipe.model_dump()
    for key, value in values.items():
        set_value(changed, current_key(key), value)
    return _validated(changed, where)


def _validated(values: Mapping[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, Recipe, where) from error
    except UnicodeEncodeError as error:  # half of a surrogate pair, which YAML can write as an escape
        raise UsageError(f"{where}: {error.object!a:.80} is no valid text.") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"), Recipe)
    except FileNotFoundError as error:
        raise UsageError(f"there is no recipe {path}. `spectra recipe list` names recipes to copy.") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise SpectraError(f"{path} is not readable YAML: {error}") from error
    except UsageError as error:
        raise UsageError(f"{path}, {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        sections = ", ".join(_SECTIONS)
        raise UsageError(f"{path}: a recipe is a mapping of sections ({sections}).")
    return values


_WANTED = {  # by pydantic's type of error
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
}


def _explain(error: ValidationError, root: type[BaseModel], where: str) -> UsageError:
    """Returns the first problem as an error with a remedy."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    dotted = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return UsageError(f"{where}: {_unknown_key(path, problem.get('input'), root)}")
    if problem["type"] == "model_type":
        return UsageError(f"{where}: {dotted} is {problem.get('input')!r}: {_wanted_section(dotted, problem, root)}")
    if problem["type"] == "missing":
        return UsageError(f"{where}: {dotted} is missing.")
    if (wanted := _WANTED.get(problem["type"])) is not None:
        return UsageError(f"{where}: {dotted} must be {wanted}, not {problem.get('input')!r}.")
    if problem["type"] == "list_type":
        value = problem.get("input")
        return UsageError(f"{where}: {dotted} is {value!r}: write a list, as in {dotted}=[{value}].")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return UsageError(f"{where}: {dotted}: {message}.")
    return UsageError(f"{where}: {dotted} is {problem.get('input')!r}: {message[:1].lower()}{message[1:]}.")


def _wanted_section(dotted: str, problem: Mapping[str, Any], root: type[BaseModel]) -> str:
    """Returns what a section has to be, and the key that a number in its place means: the weight, if there is one."""
    value = problem.get("input")
    meant = any("weight" in model.model_fields for model in models_in(annotation_of(root, dotted)))
    if meant and isinstance(value, int | float):
        return f"it has to be a section of keys and values. Set its weight: {dotted}.weight={float(value):g}."
    return "it has to be a section of keys and values."


def recipe_key(name: str) -> str | None:
    """Returns the key whose last part is a name of ours or of another tool; ``None`` if there is none.

    For example ``lr`` and ``learning_rate`` give ``train.lr``.
    """
    return _homes(Recipe).get(name)


def _unknown_key(path: list[str], value: Any, root: type[BaseModel]) -> UsageError:
    """Returns the error for a key that does not exist; a misspelled section is matched apart from the key in it.

    Args:
        path: the parts of the key, of which the last is unknown.
        value: its value; a mapping if the unknown part is a section.
        root: the schema of the whole recipe.
    """
    schema, *_ = models_in(annotation_of(root, ".".join(path[:-1]))) if path[:-1] else [root]
    prefix = ".".join([*path[:-1], ""])
    valid = [prefix + name for name in schema.model_fields]
    homes = _homes(root)
    if isinstance(value, dict) and value:  # a section, with the first of its keys
        key = str(next(iter(value)))
        near, dotted = _nearest_key(schema, path[-1], key), f"{prefix}{path[-1]}.{key}"
        meant = homes.get(key) if near is None else prefix + near
        return unknown_name("recipe key", dotted, valid, {} if meant is None else {dotted: meant})
    dotted = prefix + path[-1]
    synonyms = {prefix + other: prefix + ours for other, ours in _SYNONYMS.items() if prefix + ours in valid}
    if schema is root:  # a key without its section
        synonyms = homes
    elif path[-1] in homes:  # a key in the wrong section
        synonyms = {dotted: homes[path[-1]]} | synonyms
    return unknown_name("recipe key", dotted, valid, synonyms)


def _nearest_key(schema: type[BaseModel], section: str, key: str) -> str | None:
    """Returns the key that a misspelled section and a key in it mean; ``None`` if no section has such a name."""
    near = _nearest(section, [name for name in schema.model_fields if _section_types(schema, name)])
    if near is None:
        return None
    inner = _nearest(key, list(_section(schema, near).model_fields))
    return near if inner is None else f"{near}.{inner}"


def _nearest(name: str, valid: Sequence[str]) -> str | None:
    names = {valid_name: valid_name for valid_name in valid}
    names |= {other: ours for other, ours in _SYNONYMS.items() if ours in names}
    return next((names[near] for near in difflib.get_close_matches(name, names, n=1, cutoff=0.5)), None)


def _homes(root: type[BaseModel]) -> dict[str, str]:
    """Returns the section of each key, under its name and its synonyms; the first section wins."""
    homes = {name: f"{part}.{name}" for part in reversed(_SECTIONS) for name in _section(root, part).model_fields}
    return homes | {other: homes[ours] for other, ours in _SYNONYMS.items() if ours in homes}


def _section(schema: type[BaseModel], name: str) -> type[BaseModel]:
    return _section_types(schema, name)[0]


def _section_types(schema: type[BaseModel], name: str) -> list[type[BaseModel]]:
    return models_in(schema.model_fields[name].annotation)
