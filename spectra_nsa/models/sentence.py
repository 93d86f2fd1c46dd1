"""The SentenceTransformer around a Spectra model: building, loading, and encoding with named outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.util import batch_to_device
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from spectra_nsa.core.console import no_library_bars
from spectra_nsa.core.errors import SpectraError, opening, unknown_name
from spectra_nsa.core.inputs import text_list
from spectra_nsa.heads.spec import ModelSpec
from spectra_nsa.models.checks import check_folder, resolve_folder
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.encode import check_truncation, encode_outputs
from spectra_nsa.models.model import SpectraModel, register
from spectra_nsa.models.prompts import with_roles
from spectra_nsa.models.saved import TEXT_MODALITY
from spectra_nsa.tokens.limits import capped_length, check_vocabulary

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "prompt_length", "inputs_embeds")
# Arguments of `encode` that are accepted together with `outputs`, each with its only valid value; `encode_query` passes
# all of them on.
_WITH_OUTPUTS: dict[str, Any] = {
    "output_value": "sentence_embedding",
    "precision": "float32",
    "convert_to_numpy": True,
    "convert_to_tensor": False,
}
_IGNORED = ("show_progress_bar", "task", "normalize_embeddings")
_VALUES = ("sentence_embedding", "token_embeddings", None)  # of `output_value`


class SpectraSentenceTransformer(SentenceTransformer):
    """A `SentenceTransformer` whose only module is a Spectra model, and whose `encode` can return named outputs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prompts.update(with_roles(self.prompts, self.default_prompt_name))

    @property
    def spec(self) -> ModelSpec:
        """The model's shape."""
        return self.spectra.config

    @property
    def spectra(self) -> SpectraModel:
        """The Hugging Face model inside."""
        model = self[0].model
        assert isinstance(model, SpectraModel)
        return model

    def forward(self, input: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Adds the text vectors and the token states to the features, or computes named outputs.

        ``spectra_outputs`` in `input` names the outputs to compute, and ``spectra_detached`` those whose gradient stops
        at their head.
        """
        inputs = {key: input[key] for key in _INPUTS if key in input}
        names = input.get("spectra_outputs")
        if names is not None:
            out = self.spectra(**inputs, outputs=names, detached=input.get("spectra_detached", ()))
            return {name: out[name] for name in names}
        module: Any = self[0]
        name = module.modality_config["text"]["method_output_name"]
        out = self.spectra(**inputs, outputs=(name,))
        return {**input, "token_embeddings": out.last_hidden_state, module.module_output_name: out[name]}

    def encode(self, inputs: Any, *args: Any, outputs: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Encodes texts as `SentenceTransformer.encode` does, with three additions.

        A truncated vector is normalized again if the model normalizes its vectors, `outputs` returns several named
        outputs of the same forward passes, and without texts the arrays keep their type and width.

        Args:
            inputs: a text, or any iterable of texts.
            outputs: names of outputs, such as ``["semantic", "embedding"]``; ``None`` for `embedding` alone.

        Returns:
            (N, D) float32; with `outputs` a dict of arrays by name, in the shapes of `SpectraOutput`.
            `truncate_dim` shortens `embedding` and `semantic` only.

        Raises:
            UsageError: an output does not exist, an argument cannot be combined with `outputs`, `truncate_dim` is not
                from 1 to D, or an item is no text.
            SpectraError: bits or p-values are requested, and the model computes NaN or infinity.
        """
        if isinstance(inputs, str):
            return self._encode([str(inputs)], outputs, *args, **kwargs, single=True)
        return self._encode(text_list(inputs), outputs, *args, **kwargs)

    def _encode(
        self, texts: list[str], outputs: Sequence[str] | None, *args: Any, single: bool = False, **kwargs: Any
    ) -> Any:
        size = kwargs.get("truncate_dim")
        check_truncation(self.truncate_dim if size is None else size, self.spec.projection_dim)
        if outputs is not None:
            arrays = self._encode_outputs(texts, tuple(outputs), *args, **kwargs)
            return {name: array[0] for name, array in arrays.items()} if single else arrays
        value = kwargs.get("output_value", _VALUES[0])
        if value not in _VALUES:
            raise unknown_name("output_value", value, [str(name) for name in _VALUES])
        truncates = kwargs.get("truncate_dim") is not None or self.truncate_dim is not None
        if truncates and self.spectra.config.normalize:
            kwargs["normalize_embeddings"] = True
        if not texts:
            return super().encode([""], *args, **kwargs)[:0]
        return super().encode(texts[0] if single else texts, *args, **kwargs)

    def _encode_outputs(
        self,
        texts: list[str],
        outputs: tuple[str, ...],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        truncate_dim: int | None = None,
        **kwargs: Any,
    ) -> dict[str, np.ndarray]:
        options = {key: value for key, value in kwargs.items() if value is not None and key not in _IGNORED}
        unused = [key for key, value in options.items() if _WITH_OUTPUTS.get(key) != value]
        if unused:
            raise unknown_name(
                "argument together with `outputs`", min(unused), ("batch_size", "prompt", "truncate_dim")
            )
        prompt = self._resolve_prompt(prompt, prompt_name)
        truncate_dim = truncate_dim if truncate_dim is not None else self.truncate_dim
        self.eval()

        def compute(batch: list[str], names: Sequence[str]) -> Mapping[str, torch.Tensor]:
            features = batch_to_device(self.preprocess(batch, prompt=prompt), self.device)
            values = self.spectra(**{key: features[key] for key in _INPUTS if key in features}, outputs=names)
            return values

        return encode_outputs(texts, compute, outputs, batch_size=batch_size, truncate_dim=truncate_dim)


def build(
    model: SpectraModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_seq_length: int | None = None,
    prompts: Mapping[str, str | None] | None = None,
    default_prompt_name: str | None = None,
    similarity: Similarity | None = None,
) -> SpectraSentenceTransformer:
    """Puts a model and its tokenizer into a `SpectraSentenceTransformer`.

    Args:
        model: encoder and heads.
        tokenizer: a fast tokenizer of the same vocabulary.
        max_seq_length: the length at which texts are truncated, in tokens; ``None`` for the config's `max_length`, else
            the position limit.
        prompts: prompt by name.
        default_prompt_name: the prompt that `encode` uses by default; ``None`` for none.
        similarity: sentence-transformers' name of the similarity; ``None`` for cosine.
    """
    register()
    limit = model.config.max_position_embeddings
    tokenizer.model_max_length = min(max_seq_length or model.config.max_length or limit, limit)
    with tempfile.TemporaryDirectory() as folder:
        # sentence-transformers builds its module only from a folder. A tiny placeholder model satisfies it; the real
        # model then replaces the placeholder.
        placeholder = SpectraConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            max_position_embeddings=limit,
        )
        # Of several processes, transformers' models are saved by the first only, so the weights are written here.
        placeholder.save_pretrained(folder)
        save_file(SpectraModel(placeholder).state_dict(), Path(folder) / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save_pretrained(folder)
        module = Transformer(folder, modality_config=TEXT_MODALITY, module_output_name="sentence_embedding")
    module.model = model
    module.processor = with_normalizer(module.processor, tokenizer)
    return SpectraSentenceTransformer(
        modules=[module],
        prompts={name: text or "" for name, text in prompts.items()} if prompts else None,
        default_prompt_name=default_prompt_name,
        similarity_fn_name=similarity or "cosine",
        device=None,
    )


def with_normalizer(reloaded: Any, tokenizer: Any) -> Any:
    """Returns a tokenizer as it is reloaded from its folder, in a class that keeps its normalizer.

    Some classes rebuild the normalizer from their settings. Then lower case that a sentence-transformers folder asks
    for (`do_lower_case`) would be lost when the model is saved.

    Args:
        reloaded: the tokenizer, saved and opened again.
        tokenizer: the tokenizer before that.
    """
    backend = tokenizer.backend_tokenizer
    if repr(reloaded.backend_tokenizer.normalizer) == repr(backend.normalizer):
        return reloaded
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=tokenizer.model_input_names,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **tokenizer.special_tokens_map,
    )


@no_library_bars()
def load(folder_or_name: str | Path, *, device: str | None = None, **kwargs: Any) -> SpectraSentenceTransformer:
    """Opens a saved model.

    Args:
        folder_or_name: a folder that `save_pretrained` or a run wrote, or a Hub name.
        device: ``"cpu"``, ``"cuda"``, …; ``None`` lets torch choose.
        **kwargs: passed to `SentenceTransformer`.

    Raises:
        SpectraError: there is no model, a file is damaged, or it is another kind of model.
    """
    register()
    folder = resolve_folder(folder_or_name)
    kind = check_folder(folder)
    if kind == "bert":
        raise SpectraError(
            f"{folder_or_name} is a BERT checkpoint, not a saved Spectra model. "
            f"Open it with spectra_nsa.warm_start({str(folder_or_name)!r})."
        )
    with opening(folder_or_name):
        model = SpectraSentenceTransformer(str(folder), device=device, local_files_only=True, **kwargs)
        if not model.supports("text"):
            raise SpectraError(f"{folder_or_name}: sentence_bert_config.json names no output of texts. Restore it.")
        config = model.spectra.config
        check_vocabulary(model.tokenizer.get_vocab().values(), config.vocab_size, folder_or_name)
        model.max_seq_length = capped_length(model.max_seq_length, config.max_position_embeddings, folder_or_name)
        return model
