"""The masked-LM model from a BERT masked-LM checkpoint, for pretraining and learned-sparse encoders."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertForMaskedLM

from spectra_nsa.models.bert_adapter import config_from_bert, encoder_from_bert, fill_encoder, masked_lm_head_from_bert
from spectra_nsa.models.checks import check_folder, resolve_folder
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.model import SpectraForMaskedLM


def warm_start_masked_lm(checkpoint: str | Path) -> SpectraForMaskedLM:
    """A `SpectraForMaskedLM` that returns a BERT checkpoint's logits.

    Where the checkpoint has no masked-LM head (a sentence encoder, say), transformers initialises one and says so;
    the encoder is exact all the same.

    Args:
        checkpoint: a local folder or a Hub name.

    Raises:
        SpectraError: not found, damaged, or another architecture.
    """
    folder = resolve_folder(checkpoint)
    check_folder(folder)
    bert = BertForMaskedLM.from_pretrained(folder, local_files_only=True)
    weights = bert.state_dict()
    model = SpectraForMaskedLM(SpectraConfig(**config_from_bert(bert.config)))
    inner = {name.removeprefix("bert."): value for name, value in weights.items() if name.startswith("bert.")}
    fill_encoder(model.model.encoder, encoder_from_bert(inner, bert.config.num_hidden_layers))
    head = masked_lm_head_from_bert(weights) | {"decoder.weight": inner["embeddings.word_embeddings.weight"]}
    model.lm_head.load_state_dict(head)
    with torch.no_grad():
        model.tie_weights()
    return model.eval()
