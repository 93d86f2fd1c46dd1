"""A new vocabulary for a trained model, with token vectors derived from the old ones.

A piece that the old vocabulary has keeps its vector. Any other piece gets the mean of the old pieces that its text
splits into: Fast Vocabulary Transfer (Gee et al. 2022).

Pieces match if they agree in text and in whether they begin a word, whatever marker their tokenizers use (``##``,
``▁``, ``Ġ``). Failing that, they match except for case, and failing that by text alone. This is the matching of FOCUS
(Dobler and de Melo 2023). We omit its weighted means over auxiliary embeddings, and those of WECHSEL (Minixhofer et
al. 2022). Special tokens match by role.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import decoders
from torch import Tensor, nn

from spectra_nsa.models.model import SpectraForMaskedLM, SpectraModel
from spectra_nsa.models.sentence import SpectraSentenceTransformer, build
from spectra_nsa.tokens.kinds import SPACE_MARK

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_ROLES = (("pad",), ("unk",), ("cls", "bos"), ("sep", "eos"), ("mask",))


@dataclass(frozen=True)
class Piece:
    """The text of a piece without its tokenizer's marker, and whether it begins a word."""

    text: str
    begins_word: bool


@dataclass(frozen=True)
class Transfer:
    """A mapping from the pieces of a new vocabulary to those of the old one.

    Attributes:
        parts: for each new id, the old ids whose mean it takes; empty for the mean of the whole vocabulary.
    """

    parts: list[list[int]]

    @property
    def summary(self) -> dict[str, int]:
        """Counts all pieces, those with one old piece, the mean of several, and the mean of all."""
        sizes = [len(ids) for ids in self.parts]
        taken, without = sizes.count(1), sizes.count(0)
        return {"pieces": len(sizes), "taken": taken, "averaged": len(sizes) - taken - without, "without": without}

    def convert(self, table_VD: Tensor, *, default: Tensor | float, mode: str = "mean") -> Tensor:
        """Converts a table with one row per old piece to one with a row per new piece.

        Args:
            table_VD: (V, D), rows of the old vocabulary.
            default: the row of a piece without parts.
            mode: how the rows of several parts are combined: ``"mean"`` or ``"max"``.

        Returns:
            (V′, D), rows of the new vocabulary.
        """
        part_ids = torch.tensor(list(itertools.chain.from_iterable(self.parts)), device=table_VD.device)
        sizes = torch.tensor([len(ids) for ids in self.parts], device=table_VD.device)
        offsets = sizes.cumsum(0) - sizes
        rows = F.embedding_bag(part_ids.long(), table_VD.detach().float(), offsets, mode=mode)
        rows[sizes == 0] = default
        return rows.to(table_VD.dtype)


def pieces_of(tokenizer: Any) -> list[Piece | None]:
    """Returns the piece of each id of a fast tokenizer; ``None`` for special tokens and fragments of a character."""
    config = json.loads(tokenizer.backend_tokenizer.to_str())
    stages = json.dumps([config["normalizer"], config["pre_tokenizer"], config["decoder"]], ensure_ascii=False)
    special = {token["id"] for token in config["added_tokens"] if token["special"]}
    pieces: list[Piece | None] = [None] * (max(tokenizer.get_vocab().values()) + 1)  # some vocabularies have gaps
    prefix = config["model"].get("continuing_subword_prefix") if config["model"]["type"] == "WordPiece" else None
    byte_level = decoders.ByteLevel() if '"ByteLevel"' in stages else None
    mark = SPACE_MARK if SPACE_MARK in stages else None
    for token, number in tokenizer.get_vocab().items():
        if number in special:
            continue
        if byte_level is not None:
            text = byte_level.decode([token])
            pieces[number] = None if "\ufffd" in text else Piece(text.lstrip(" "), text.startswith(" "))
        elif prefix is not None:
            pieces[number] = Piece(token.removeprefix(prefix), not token.startswith(prefix))
        elif mark is not None and (byte := _BYTE.fullmatch(token)):
            code = int(byte[1], 16)
            pieces[number] = Piece(chr(code), False) if code < 128 else None
        elif mark is not None:
            pieces[number] = Piece(token.lstrip(mark), token.startswith(mark))
        else:
            pieces[number] = Piece(token, True)
    return pieces


class _OldVocabulary:
    """Lookup of pieces in the old vocabulary."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.unknown = [] if tokenizer.unk_token_id is None else [tokenizer.unk_token_id]
        self.pieces = pieces_of(tokenizer)
        self.exact: dict[tuple[str, bool], int] = {}
        self.folded: dict[tuple[str, bool], int] = {}
        for number, piece in enumerate(self.pieces):
            if piece is not None and piece.text:
                self.exact.setdefault((piece.text, piece.begins_word), number)
                self.folded.setdefault((piece.text.casefold(), piece.begins_word), number)

    def find(self, piece: Piece) -> int | None:
        """Returns the id of the matching piece, or ``None``.

        Punctuation matches a piece that begins a word first, because many tokenizers split at punctuation and never
        use the other form.
        """
        prefers_begin = piece.begins_word or _is_punctuation(piece.text)
        for begins_word in (True, False) if prefers_begin else (False, True):
            for ids, text in ((self.exact, piece.text), (self.folded, piece.text.casefold())):
                if (number := ids.get((text, begins_word))) is not None:
                    return number
        return None

    def split(self, pieces: list[Piece]) -> Iterator[list[int]]:
        """Yields the ids that each piece's text splits into, dropping unknown ones unless there are no others."""
        if not pieces:
            return
        texts = [piece.text for piece in pieces]
        rows = self.tokenizer(texts, add_special_tokens=False, padding=False, truncation=False)["input_ids"]
        for piece, ids in zip(pieces, rows, strict=True):
            known = [number for number in ids if (part := self.pieces[number]) is not None and part.text]
            if known and known[0] == ids[0] and not piece.begins_word:
                first = self.pieces[known[0]]
                if first is not None and not _is_punctuation(first.text):
                    known[0] = self.exact.get((first.text, False), known[0])
            yield known or self.unknown


def _is_punctuation(text: str) -> bool:
    """Returns whether a text has neither letters nor digits."""
    return not any(map(str.isalnum, text))


def match_vocabularies(old: Any, new: Any) -> Transfer:
    """Finds the old pieces that make up each piece of a new vocabulary.

    Args:
        old: the fast tokenizer of the trained model.
        new: the fast tokenizer that replaces it.
    """
    vocabulary = _OldVocabulary(old)
    pieces = pieces_of(new)
    parts: list[list[int]] = [list(vocabulary.unknown) for _ in pieces]
    unmatched: dict[int, Piece] = {}
    for number, piece in enumerate(pieces):
        if piece is None:
            continue
        if not piece.text.strip():
            parts[number] = []
        elif (match := vocabulary.find(piece)) is not None:
            parts[number] = [match]
        else:
            unmatched[number] = piece
    for number, ids in zip(unmatched, vocabulary.split(list(unmatched.values())), strict=True):
        parts[number] = ids
    for number, match in _match_special_tokens(old, new).items():
        parts[number] = [] if match is None else [match]
    return Transfer(parts)


def _match_special_tokens(old: Any, new: Any) -> dict[int, int | None]:
    """Maps the new special tokens to old ones of the same role or, if they have no role, of the same name."""
    old_ids = dict(zip(old.all_special_tokens, old.all_special_ids, strict=True))
    matches = dict(zip(new.all_special_ids, map(old_ids.get, new.all_special_tokens), strict=True))
    for names in _ROLES:
        new_id, old_id = _special_id(new, names), _special_id(old, names)
        if new_id is not None and old_id is not None:
            matches[new_id] = old_id
    return matches


def _special_id(tokenizer: Any, names: tuple[str, ...]) -> int | None:
    """Returns the id of the first of the named special tokens that a tokenizer has."""
    ids = (getattr(tokenizer, f"{name}_token_id") for name in names)
    return next((number for number in ids if number is not None), None)


def same_tokenizer(first: Any, second: Any) -> bool:
    """Returns whether two fast tokenizers give every text the same ids, apart from truncation and padding."""
    configs = []
    for tokenizer in (first, second):
        config = json.loads(tokenizer.backend_tokenizer.to_str())
        configs.append({name: value for name, value in config.items() if name not in ("truncation", "padding")})
    return bool(configs[0] == configs[1]) and first.pad_token_id == second.pad_token_id


@torch.no_grad()
def refit_tables(model: SpectraModel | SpectraForMaskedLM, transfer: Transfer, pad_token_id: int) -> None:
    """Converts a model's token vectors, token rarity (IDF) and masked-LM bias to the new vocabulary.

    A text that contains a new piece contains all its parts, so the piece is at least as rare as the rarest of them.
    Until rarity is fitted again, it takes that value. All other weights stay.

    Args:
        model: changed in place, config included.
        transfer: mapping from the model's vocabulary to the new one.
        pad_token_id: id of the new vocabulary's padding token.
    """
    spectra = model.model if isinstance(model, SpectraForMaskedLM) else model
    old = spectra.encoder.embeddings.tokens.weight
    rows_VD = transfer.convert(old, default=old.mean(0).float())
    vocab_size = len(rows_VD)
    tokens = nn.Embedding(vocab_size, rows_VD.shape[1], padding_idx=pad_token_id, _weight=rows_VD)
    tokens.weight.requires_grad_(old.requires_grad)
    spectra.set_input_embeddings(tokens)
    prior = spectra.entity.prior
    prior.idf = transfer.convert(prior.idf[:, None], default=0.0, mode="max")[:, 0]
    for config in (model.config, spectra.config):
        config.vocab_size, config.pad_token_id = vocab_size, pad_token_id
    if isinstance(model, SpectraForMaskedLM):
        bias = model.lm_head.bias
        model.lm_head.bias = nn.Parameter(transfer.convert(bias[:, None], default=float(bias.mean()))[:, 0])
        model.lm_head.decoder = nn.Linear(rows_VD.shape[1], vocab_size, bias=False, device=rows_VD.device)
        model.tie_weights()


def with_vocabulary(model: SpectraSentenceTransformer, tokenizer: Any) -> tuple[SpectraSentenceTransformer, Transfer]:
    """Replaces a model's tokenizer and converts its token vectors.

    Args:
        model: changed in place; use the returned model instead.
        tokenizer: a fast tokenizer with a padding token; see `fresh.load_tokenizer`.

    Returns:
        the model with the new tokenizer, and the mapping between the vocabularies.
    """
    transfer = match_vocabularies(model.tokenizer, tokenizer)
    refit_tables(model.spectra, transfer, tokenizer.pad_token_id)
    changed = build(
        model.spectra,
        tokenizer,
        max_seq_length=model.max_seq_length,
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
        similarity=model.similarity_fn_name,
    )
    return changed, transfer
