"""The sparse encoder that a recipe starts from, and what is set before its first step."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.sections import SHAPE_OPTIONS
from spectra_nsa.config.shape_options import shape_fields
from spectra_nsa.core import processes
from spectra_nsa.core.console import say_loading
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.precision import resolve_precision

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.sparse.calibrate import Calibration
    from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder

_SAMPLE = 20_000  # rows whose texts the closed-form head and the IDF are taken from
_CHECKED = 64  # texts on which the use of the vocabulary is checked
_CAPPED = 1_000  # documents on which document frequencies are measured
_MARGIN = 0.9  # of the highest document frequency: the sample is not the corpus
_STATIC_TOP = 3.0  # the query weight of the rarest token at the start


def open_sparse_start(recipe: Recipe) -> SpectraSparseEncoder:
    """Opens the sparse encoder that a recipe starts from. Its head may still be untrained; see `prepare_sparse_start`.

    Raises:
        SpectraError: there is no such model, or it cannot become a sparse encoder.
    """
    from spectra_nsa.models.open import model_kind, open_model
    from spectra_nsa.models.sparse.build import inference_free, set_dropout, splade_from

    assert recipe.sparse is not None
    section, start = recipe.model, find_sparse_start(recipe)
    own_shape = bool(shape_fields(SHAPE_OPTIONS, section.model_dump()))
    if start is None or own_shape or section.tokenizer is not None or section.keep_layers is not None:
        model = _own_backbone(recipe, start)
    elif model_kind(start) == "sparse":
        model = open_model(start, accept=("sparse",))
    else:
        say_loading(str(section.start or start))
        model = splade_from(start, max_length=section.max_length)
    if section.max_length is not None:
        model.max_seq_length = min(section.max_length, model.max_seq_length)
    if section.dropout is not None:
        set_dropout(model, section.dropout)
    if recipe.sparse.kind == "inference_free" and model.static("query") is None:
        model = inference_free(model, torch.zeros(model.get_embedding_dimension() or len(model.tokenizer)))
    if recipe.sparse.kind == "splade" and model.static("query") is not None:
        raise SpectraError(
            f"{section.start} is inference-free. Set sparse.kind=inference_free, or start from a SPLADE model."
        )
    return model


def find_sparse_start(recipe: Recipe) -> Path | None:
    """Returns the folder that a recipe starts from; ``None`` from scratch.

    Without `model.start` and `model.size`, it is the default start (see `models.sparse.names`).

    Raises:
        SpectraError: there is no such model.
    """
    from spectra_nsa.models.sparse.names import default_start, sparse_start

    if recipe.model.start is None:
        return default_start()[0] if recipe.model.size is None else None
    return sparse_start(recipe.model.start)[0]


def planned_sparse(recipe: Recipe) -> tuple[int, int, int, int]:
    """Returns the parameters, layers, width and longest text in tokens of the encoder that a recipe trains."""
    model = open_sparse_start(recipe)
    config = model.masked_lm().config
    parameters = sum(weight.numel() for weight in model.parameters())
    head = model.head("document")
    tied = head is not None and head.weight is model.masked_lm().get_input_embeddings().weight
    if head is not None and tied and needs_closed_form(recipe):  # which gets a decoder of its own
        parameters += sum(weight.numel() for weight in head.decoder.parameters())
    return parameters, config.num_hidden_layers, config.hidden_size, model.max_seq_length or 512


def _own_backbone(recipe: Recipe, start: Path | None) -> SpectraSparseEncoder:
    """Builds the recipe's own encoder, with the start's masked-LM head if it has one."""
    from spectra_nsa.models.masked_lm import save_masked_lm, with_masked_lm_head
    from spectra_nsa.models.sparse.build import splade_from
    from spectra_nsa.training.init.start import open_start

    model = recipe.model.model_copy(update={"start": None if start is None else str(start)})
    sentence_model = open_start(recipe.model_copy(update={"model": model}))
    masked_lm = with_masked_lm_head(sentence_model, start)
    with tempfile.TemporaryDirectory() as folder:
        save_masked_lm(masked_lm, sentence_model, Path(folder))
        return splade_from(folder, max_length=sentence_model.max_seq_length)


def needs_closed_form(recipe: Recipe) -> bool:
    """Returns whether the vocabulary head is made in closed form.

    Raises:
        SpectraError: the recipe asks for the checkpoint's head, and it has none.
    """
    assert recipe.sparse is not None
    wanted = recipe.sparse.head
    if wanted == "closed_form":
        return True
    trained = has_trained_head(find_sparse_start(recipe))
    if not trained and wanted == "checkpoint":
        raise SpectraError(
            f"{recipe.model.start or 'a model from scratch'} has no masked-LM head. Set sparse.head=closed_form, which "
            "makes one from the training texts in about a minute, or start from a masked LM."
        )
    return not trained


def has_trained_head(start: Path | None) -> bool:
    """Returns whether the folder that a recipe starts from has a trained vocabulary head."""
    from spectra_nsa.models.open import model_kind
    from spectra_nsa.models.sparse.build import has_masked_lm_head

    return start is not None and (model_kind(start) == "sparse" or has_masked_lm_head(start))


def prepare_sparse_start(recipe: Recipe, model: SpectraSparseEncoder, rows: Dataset, *, closed_form: bool) -> None:
    """Makes the head if there is none, calibrates it, and starts static query weights from the training texts.

    Args:
        recipe: the run.
        model: changed in place.
        rows: the training rows, in columns of texts; the first holds queries.
        closed_form: see `needs_closed_form`.

    Raises:
        SpectraError: the vocabulary is silent, or active throughout.
    """
    from spectra_nsa.models.sparse.calibrate import calibrate, check_vocabulary_use, measure_use
    from spectra_nsa.models.sparse.closed_form import fit_closed_form_head, idf

    section = recipe.sparse
    assert section is not None
    precision = resolve_precision(recipe.train.precision)
    step = max(1, len(rows) // _SAMPLE)
    sample = rows.select(range(0, len(rows), step)) if step > 1 else rows
    queries, *others = [list(sample[name]) for name in sample.column_names]
    documents = [text for row in zip(*others, strict=True) for text in row]
    if closed_form:
        texts = [text for pair in zip(queries, documents[:: len(others)], strict=True) for text in pair]
        fit = fit_closed_form_head(model, texts, precision=precision)
        _say(f"head: in closed form from {fit.tokens:,} tokens; {fit.recovered:.0%} of held-out ones recovered")
    target = section.document_active or 150
    first = documents[: section.calibrate or _CHECKED]
    use = measure_use(model, first, precision=precision) if not section.calibrate else None
    if section.calibrate and model.head("document") is not None:
        calibration = calibrate(model, first, target, precision=precision)
        use = calibration.after
        _say(_calibration_line(calibration, len(first)))
    if use is not None:
        check_vocabulary_use(use, model.get_embedding_dimension() or 0)
    if cap_document_frequency(recipe, model, rows):
        left = measure_use(model, first, precision=precision).active
        _say(f"head: {left:.0f} active terms a document are left in these {len(first)}")
    if (static := model.static("query")) is not None and not static.weight.any():
        with torch.no_grad():
            static.weight.copy_(_STATIC_TOP * idf(model, documents).to(static.weight.device))
            static.weight[model.tokenizer.all_special_ids] = 0


def _calibration_line(calibration: Calibration, documents: int) -> str:
    before = f"head: {calibration.before.active:,.0f} active terms a document"
    if not calibration.changed:
        return f"{before} in a sample of {documents}, near enough to the target to stay as it is"
    return f"{before} in a sample of {documents} before calibration, {calibration.after.active:,.0f} after it"


def cap_document_frequency(recipe: Recipe, model: SpectraSparseEncoder, rows: Dataset) -> int:
    """Keeps every term out of more than the recipe's share of the documents, less a margin; prints how many it lowers.

    Args:
        recipe: the run.
        model: changed in place.
        rows: the training rows, in columns of texts; the first holds queries.

    Returns:
        the number of terms that were lowered.
    """
    from spectra_nsa.models.sparse.calibrate import cap_common_terms

    section = recipe.sparse
    assert section is not None
    if section.highest_df is None:
        return 0
    step = max(1, len(rows) // _CAPPED)
    documents = list(rows.select(range(0, len(rows), step))[:][rows.column_names[1]])
    share = section.highest_df * _MARGIN
    lowered = cap_common_terms(model, documents, share, precision=recipe.train.precision)
    if lowered:
        were = "term lowered that was" if lowered == 1 else "terms lowered that were"
        _say(f"head: {lowered:,} {were} in more than {share:.3g} of {len(documents):,} documents")
    return lowered


def untie_as(model: SpectraSparseEncoder, checkpoint: Path) -> None:
    """Unties the decoder of a model if a checkpoint's is not tied, so that its weights can be loaded.

    Args:
        model: changed in place.
        checkpoint: a folder that `save_pretrained` wrote.
    """
    from spectra_nsa.core.files import read_json_object
    from spectra_nsa.models.sparse.closed_form import untie_decoder

    head = model.head("document")
    if head is not None and read_json_object(config_of(checkpoint)).get("tie_word_embeddings") is False:
        untie_decoder(head)


def config_of(checkpoint: Path) -> Path:
    """Returns the path of a saved sparse encoder's `config.json`, which is in a subfolder if the model routes."""
    routed: Sequence[Path] = sorted(checkpoint.glob("document_*_Transformer/config.json"))
    return routed[0] if routed else checkpoint / "config.json"


def _say(line: str) -> None:
    if processes.is_first():
        print(line, file=sys.stderr, flush=True)
