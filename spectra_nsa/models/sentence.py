"""The SentenceTransformer around a Spectra model: building, loading, and encoding with named outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedTokenizerBase

from spectra_nsa.core.console import no_library_bars
from spectra_nsa.core.errors import SpectraError, UsageError, opening, unknown_name
from spectra_nsa.core.inputs import text_list
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.heads.spec import ModelSpec
from spectra_nsa.models.checks import check_folder, resolve_folder
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.encoding.formats import as_library, read_precision
from spectra_nsa.models.encoding.outputs import check_truncation, encode_with
from spectra_nsa.models.model import SpectraModel, register
from spectra_nsa.models.prompts import with_roles
from spectra_nsa.models.saved import TEXT_MODALITY
from spectra_nsa.tokens.kinds import with_normalizer
from spectra_nsa.tokens.limits import capped_length, check_vocabulary

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "prompt_length", "inputs_embeds")
_VALUES = ("sentence_embedding", "token_embeddings", None)  # of `output_value`


class SpectraSentenceTransformer(SentenceTransformer):
    """A `SentenceTransformer` whose only module is a Spectra model, and whose `encode` can return named outputs."""

    encodes_in = True  # `encode` has an argument `precision` for the number format

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

    def encode(  # type: ignore[override]
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        *,
        outputs: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Encodes texts as `SentenceTransformer.encode` does, faster, and with named outputs.

        Texts are sorted by their number of tokens, and computed in bf16 if the processor multiplies it natively. A
        truncated vector is normalized again if the model normalizes its vectors, and without texts the arrays keep
        their type and width. Arguments that are not listed here mean what they mean in `SentenceTransformer.encode`.

        Args:
            inputs: a text, or any iterable of texts.
            batch_size: texts per batch; ``None`` for as many as fill a number of tokens that suits the device.
            precision: the number format to compute in, ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``; ``None`` for
                that of an autocast in force, else ``"auto"``. sentence-transformers' names, such as ``"int8"``,
                quantize the vectors.
            outputs: names of outputs, such as ``["semantic", "embedding"]``; ``None`` for `embedding` alone.

        Returns:
            (N, D) float32; with `outputs` a dict of arrays by name, in the shapes of `SpectraOutput`.
            `truncate_dim` shortens `embedding` and `semantic` only.

        Raises:
            UsageError: an output or precision does not exist, an argument cannot be combined with `outputs`,
                `truncate_dim` is not from 1 to D, or an item is no text.
            SpectraError: bits or p-values are requested, and the model computes NaN or infinity.
        """
        single = isinstance(inputs, str)
        texts = [str(inputs)] if single else text_list(inputs)
        options = {
            "prompt_name": prompt_name, "prompt": prompt, "show_progress_bar": show_progress_bar, "device": device,
            "normalize_embeddings": normalize_embeddings, "convert_to_numpy": convert_to_numpy,
            "convert_to_tensor": convert_to_tensor,
        }  # fmt: skip
        more = {name: value for name, value in kwargs.items() if value is not None}
        size = self.truncate_dim if truncate_dim is None else truncate_dim
        found = self._encode(texts, outputs, batch_size, output_value, *read_precision(precision), size, options, more)
        if not single:
            return found
        return found[0] if outputs is None else {name: array[0] for name, array in found.items()}

    def _encode(
        self,
        texts: list[str],
        outputs: Sequence[str] | None,
        batch_size: int | None,
        output_value: str | None,
        number_format: str | None,
        quantized: str | None,
        truncate_dim: int | None,
        options: Mapping[str, Any],
        more: Mapping[str, Any],
    ) -> Any:
        """Encodes texts with our loop if it can do what is asked for, else with the library's.

        Args:
            options: further arguments of `encode`.
            more: arguments of the library that `encode` does not name.
        """
        if output_value not in _VALUES:
            raise unknown_name("output_value", output_value, [str(name) for name in _VALUES])
        check_truncation(truncate_dim, self.spec.projection_dim)
        own = output_value == _VALUES[0] and more.keys() <= {"task", "processing_kwargs"} and len(self) == 1
        if not own or isinstance(options["device"], list) or self._distributed_inference is not None:
            further = {"batch_size": batch_size or 32, "output_value": output_value, "truncate_dim": truncate_dim}
            return self._encode_by_library(texts, outputs, number_format, quantized, **options, **further, **more)
        as_array, as_tensor = options["convert_to_numpy"], options["convert_to_tensor"]
        if outputs is not None and (quantized or as_tensor or not as_array):
            raise UsageError("`outputs` returns arrays as they are computed: drop `precision` and `convert_to_…`.")
        if options["device"] is not None:
            self.to(options["device"])
        if any(module.training for module in self.modules()):  # `eval` takes as long as a layer
            self.eval()
        found = encode_with(
            self.spectra,
            texts,
            partial(self.preprocess, prompt=self._resolve_prompt(options["prompt"], options["prompt_name"]), **more),
            outputs=outputs,
            precision=number_format,
            truncate_dim=truncate_dim,
            normalize=options["normalize_embeddings"],
            batch_size=batch_size,
            label="encoding" if options["show_progress_bar"] else None,
        )
        return found if outputs is not None else as_library(found, quantized, as_array, as_tensor, self.device)

    def encode_query(  # type: ignore[override]
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Encodes texts with the prompt of queries, as `encode` does."""
        return super().encode_query(inputs, prompt_name, prompt, batch_size, **kwargs)

    def encode_document(  # type: ignore[override]
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Encodes texts with the prompt of documents, as `encode` does."""
        return super().encode_document(inputs, prompt_name, prompt, batch_size, **kwargs)

    def _encode_by_library(
        self,
        texts: list[str],
        outputs: Sequence[str] | None,
        number_format: str | None,
        quantized: str | None,
        **options: Any,
    ) -> Any:
        """Encodes with the library's loop, which knows several devices, token vectors and further modules."""
        if outputs is not None:
            raise UsageError("`outputs` cannot be combined with several devices, `output_value` or further modules.")
        if options["truncate_dim"] is not None and self.spec.normalize:
            options["normalize_embeddings"] = True
        chosen = resolve_precision(number_format or "fp32", self.device.type)
        with autocast(self.device.type, chosen):
            return cast(Any, super().encode)(texts or [""], precision=quantized or "float32", **options)[: len(texts)]


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
