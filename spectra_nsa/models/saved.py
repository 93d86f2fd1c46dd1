"""Saved Spectra models opened without transformers, whose import alone takes seconds, for commands that encode.

The outputs are bit for bit those of `sentence.load`. Folders that hold more than a Spectra model and a standard fast
tokenizer must be opened with `sentence.load`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from spectra_nsa.core.errors import opening
from spectra_nsa.core.files import read_json
from spectra_nsa.core.inputs import text_list
from spectra_nsa.heads.outputs import NamedOutputs, empty_outputs, load_outputs
from spectra_nsa.heads.spec import ModelSpec
from spectra_nsa.models.checks import weight_shapes
from spectra_nsa.models.encoding.outputs import encode_with
from spectra_nsa.models.prompts import Prompted, with_roles
from spectra_nsa.tokens.limits import check_vocabulary

# The settings written by `sentence.build` that decide how texts are encoded.
_MODULE = "sentence_transformers.base.modules.transformer.Transformer"
TEXT_MODALITY: dict[str, Any] = {"text": {"method": "forward", "method_output_name": "embedding"}}
_TRANSFORMER = {
    "transformer_task": "feature-extraction",
    "modality_config": TEXT_MODALITY,
    "module_output_name": "sentence_embedding",
}
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LARGE = 100_000  # above this vocabulary size transformers may change the pre-tokenizer


@dataclass(frozen=True, kw_only=True)
class TextTokenizer:
    """A tokenizer that maps texts to padded ids.

    Attributes:
        backend: truncates and pads.
        names: the names of the model's input tensors.
        special_ids: the ids of special tokens.
        max_length: the length at which texts are truncated, in tokens.
    """

    backend: Tokenizer
    names: tuple[str, ...]
    special_ids: frozenset[int]
    max_length: int

    def __call__(self, texts: list[str]) -> dict[str, torch.Tensor]:
        encodings = self.backend.encode_batch(texts)
        columns = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}
        return {name: torch.tensor([getattr(encoding, columns[name]) for encoding in encodings]) for name in self.names}

    def prompt_length(self, prompt: str) -> int:
        """Returns the number of tokens of a prompt, without a special token at its end."""
        ids = self.backend.encode(prompt).ids
        return len(ids) - (ids[-1] in self.special_ids)


class SavedModel(Prompted):
    """A saved model that encodes texts, with the encoding methods of `SpectraSentenceTransformer`.

    Attributes:
        spec: the model's shape.
        prompts: prompt by name.
        default_prompt_name: the prompt that `encode` uses by default; ``None`` for none.
        max_seq_length: the length at which texts are truncated, in tokens.
        device: the device it computes on.
    """

    encodes_in = True  # `encode` has an argument `precision`

    def __init__(
        self,
        model: NamedOutputs,
        tokenizer: TextTokenizer,
        *,
        prompts: Mapping[str, str | None],
        default_prompt_name: str | None,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.spec = model.spec
        self.prompts, self.default_prompt_name = with_roles(prompts, default_prompt_name), default_prompt_name
        self.max_seq_length = tokenizer.max_length
        self._model, self._tokenizer = model.to(self.device), tokenizer

    def encode(
        self,
        inputs: str | Sequence[str],
        *,
        outputs: Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        truncate_dim: int | None = None,
        normalize_embeddings: bool = False,
        show_progress_bar: bool = False,
        precision: str | None = None,
    ) -> Any:
        """Encodes texts as `SpectraSentenceTransformer.encode` does."""
        texts = [str(inputs)] if isinstance(inputs, str) else text_list(inputs)
        arrays = encode_with(
            self._model,
            texts,
            functools.partial(self._tokenize, prompt=self._named_prompt(prompt_name) if prompt is None else prompt),
            outputs=outputs,
            precision=precision,
            truncate_dim=truncate_dim,
            normalize=normalize_embeddings,
            batch_size=batch_size,
            label="encoding" if show_progress_bar else None,
        )
        if not isinstance(inputs, str):
            return arrays
        return arrays[0] if outputs is None else {name: array[0] for name, array in arrays.items()}

    def get_embedding_dimension(self) -> int:
        """Returns the width of a vector, as `SpectraSentenceTransformer` does."""
        return self.spec.projection_dim

    @property
    def text_tokenizer(self) -> Tokenizer:
        """The tokenizer, which truncates and pads."""
        return self._tokenizer.backend

    def _tokenize(self, texts: list[str], prompt: str | None) -> dict[str, Any]:
        features = self._tokenizer([prompt + text for text in texts] if prompt else texts)
        return features | ({"prompt_length": self._tokenizer.prompt_length(prompt)} if prompt else {})


def open_saved(folder: Path) -> SavedModel | None:
    """Opens a saved Spectra model whose files `checks.check_folder` has checked.

    Returns:
        the model; ``None`` if the folder holds anything that only transformers or sentence-transformers can interpret.

    Raises:
        SpectraError: the weights do not fit the config, or a token has no vector.
    """
    names = ("config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
    files = (*names, "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    if not all((folder / name).is_file() for name in files):
        return None
    with opening(folder):
        return _open_files(folder, *(read_json(folder / name) for name in names))


def _open_files(folder: Path, config: Any, modules: Any, transformer: Any, library: Any) -> SavedModel | None:
    """Opens a model from the content of its JSON files; see `open_saved`."""
    module = [(module["path"], module["type"]) for module in modules]
    if module != [("", _MODULE)] or transformer != _TRANSFORMER or config.get("dtype") != "float32":
        return None
    if library.get("truncate_dim") is not None or torch.backends.mps.is_available():
        return None
    spec = ModelSpec.from_config(config)
    tokenizer = _open_tokenizer(folder, spec.max_position_embeddings)
    if tokenizer is None:
        return None
    check_vocabulary(tokenizer.backend.get_vocab().values(), spec.vocab_size, folder)
    if (weight_shapes(folder) or {}).keys() != empty_outputs(spec).state_dict().keys():  # a masked LM's folder
        return None
    model = load_outputs(spec, folder / "model.safetensors")
    prompts, default = library.get("prompts", {}), library.get("default_prompt_name")
    return SavedModel(model, tokenizer, prompts=prompts, default_prompt_name=default)


def _open_tokenizer(folder: Path, positions: int) -> TextTokenizer | None:
    """Opens a tokenizer that `tokenizer.json` describes fully; returns ``None`` for any other."""
    config, text = read_json(folder / "tokenizer_config.json"), (folder / "tokenizer.json").read_text(encoding="utf-8")
    saved = json.loads(text)
    names = tuple(config.get("model_input_names") or ("input_ids", "attention_mask"))
    if config.get("tokenizer_class") in ("BertTokenizer", "BertTokenizerFast"):
        if not _is_standard_bert(saved, config):
            return None
        names = ("input_ids", "token_type_ids", "attention_mask")
    elif config.get("tokenizer_class") not in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return None
    added = {token["content"]: token["id"] for token in saved["added_tokens"]}
    special = [config[name] for name in _SPECIAL if config.get(name) is not None]
    special += config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    unusual = ("auto_map", "added_tokens_decoder", "add_prefix_space", "split_special_tokens")
    if any(config.get(name) for name in unusual) or saved["post_processor"] is None:
        return None
    if not all(isinstance(token, str) and token in added for token in special) or config.get("pad_token") is None:
        return None
    backend = Tokenizer.from_str(text)
    if backend.get_vocab_size() > _LARGE:
        return None
    max_length = min(config.get("model_max_length", positions), positions)
    backend.enable_truncation(max_length, direction=config.get("truncation_side", "right"))
    backend.enable_padding(
        direction=config.get("padding_side", "right"),
        pad_id=added[config["pad_token"]],
        pad_type_id=config.get("pad_token_type_id", 0),
        pad_token=config["pad_token"],
    )
    return TextTokenizer(
        backend=backend, names=names, special_ids=frozenset(added[token] for token in special), max_length=max_length
    )


def _is_standard_bert(saved: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Returns whether `tokenizer.json` equals what transformers' BertTokenizer builds from the vocabulary alone."""
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
        "strip_accents": config.get("strip_accents"),
        "lowercase": config.get("do_lower_case", True),
    }
    model = {name: value for name, value in saved["model"].items() if name != "vocab"}
    pieces = {
        "type": "WordPiece",
        "unk_token": config.get("unk_token", "[UNK]"),
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }
    template = [
        {"SpecialToken": {"id": config.get("cls_token", "[CLS]"), "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": config.get("sep_token", "[SEP]"), "type_id": 0}},
    ]
    processor = saved["post_processor"] or {}
    return (
        saved["normalizer"] == normalizer
        and saved["pre_tokenizer"] == {"type": "BertPreTokenizer"}
        and model == pieces
        and processor.get("type") == "TemplateProcessing"
        and processor["single"] == template
        and all(token["special"] for token in saved["added_tokens"])
    )
