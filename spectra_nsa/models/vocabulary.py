"""Another vocabulary for a trained model, its token vectors taken from those of the old one.

A piece that the old vocabulary has keeps its vector; any other gets the mean of the old pieces that its text splits
into: Fast Vocabulary Transfer (Gee et al. 2022). Pieces are the same when they agree in text and in whether they begin
a word, whatever the tokenizers write for that (``##``, ``▁``, ``Ġ``), else but for case, else in text alone: the
matching of FOCUS (Dobler and de Melo 2023), whose weighted means over auxiliary embeddings, like WECHSEL's (Minixhofer
et al. 2022), we leave out. Special tokens go by their role.
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
from spectra_nsa.tokens.kinds import MARK

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_ROLES = (("pad",), ("unk",), ("cls", "bos"), ("sep", "eos"), ("mask",))


@dataclass(frozen=True)
class Piece:
    """What a piece stands for: its `text`, and whether it `begins` a word."""

    text: str
    begins: bool


@dataclass(frozen=True)
class Transfer:
    """Which old pieces each new one is made of.

    Attributes:
        parts: new id → the old ids whose mean it takes; empty where there are none: it takes the mean of all.
    """

    parts: list[list[int]]

    @property
    def summary(self) -> dict[str, int]:
        """How many pieces there are, how many are one old piece, the mean of several, the mean of all."""
        sizes = [len(ids) for ids in self.parts]
        one, none = sizes.count(1), sizes.count(0)
        return {"pieces": len(sizes), "taken": one, "averaged": len(sizes) - one - none, "without": none}

    def rows(self, table_VD: Tensor, *, empty: Tensor | float, mode: str = "mean") -> Tensor:
        """(V′, D): the rows of a table of the old vocabulary joined into the new one's.

        Args:
            table_VD: (V, D).
            empty: the row of a piece without parts.
            mode: how parts are joined: ``"mean"`` or ``"max"``.
        """
        flat = torch.tensor(list(itertools.chain.from_iterable(self.parts)), device=table_VD.device)
        sizes = torch.tensor([len(ids) for ids in self.parts], device=table_VD.device)
        offsets = sizes.cumsum(0) - sizes
        joined = F.embedding_bag(flat.long(), table_VD.detach().float(), offsets, mode=mode)
        joined[sizes == 0] = empty
        return joined.to(table_VD.dtype)


def pieces_of(tokenizer: Any) -> list[Piece | None]:
    """What each id of a fast tokenizer stands for; ``None`` for special tokens and for parts of a character."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    stages = json.dumps([parts["normalizer"], parts["pre_tokenizer"], parts["decoder"]], ensure_ascii=False)
    special = {token["id"] for token in parts["added_tokens"] if token["special"]}
    found: list[Piece | None] = [None] * (max(tokenizer.get_vocab().values()) + 1)  # some vocabularies have gaps
    prefix = parts["model"].get("continuing_subword_prefix") if parts["model"]["type"] == "WordPiece" else None
    bytewise = decoders.ByteLevel() if '"ByteLevel"' in stages else None
    mark = MARK if MARK in stages else None
    for piece, number in tokenizer.get_vocab().items():
        if number in special:
            continue
        if bytewise is not None:
            text = bytewise.decode([piece])
            found[number] = None if "\ufffd" in text else Piece(text.lstrip(" "), text.startswith(" "))
        elif prefix is not None:
            found[number] = Piece(piece.removeprefix(prefix), not piece.startswith(prefix))
        elif mark is not None and (byte := _BYTE.fullmatch(piece)):
            code = int(byte[1], 16)
            found[number] = Piece(chr(code), False) if code < 128 else None
        elif mark is not None:
            found[number] = Piece(piece.lstrip(mark), piece.startswith(mark))
        else:
            found[number] = Piece(piece, True)
    return found


class _Old:
    """The old vocabulary, to be asked for pieces."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.unknown = [] if tokenizer.unk_token_id is None else [tokenizer.unk_token_id]
        self.pieces = pieces_of(tokenizer)
        self.exact: dict[tuple[str, bool], int] = {}
        self.folded: dict[tuple[str, bool], int] = {}
        for number, piece in enumerate(self.pieces):
            if piece is not None and piece.text:
                self.exact.setdefault((piece.text, piece.begins), number)
                self.folded.setdefault((piece.text.casefold(), piece.begins), number)

    def find(self, piece: Piece) -> int | None:
        """The id of the same piece; of signs without a letter or digit the one that begins a word comes first, since
        many tokenizers split there and never make use of the other."""
        for begins in (True, False) if piece.begins or _signs(piece.text) else (False, True):
            for known, text in ((self.exact, piece.text), (self.folded, piece.text.casefold())):
                if (number := known.get((text, begins))) is not None:
                    return number
        return None

    def split(self, pieces: list[Piece]) -> Iterator[list[int]]:
        """For each piece the ids that its text splits into, unknown ones only where there are no others."""
        if not pieces:
            return
        texts = [piece.text for piece in pieces]
        rows = self.tokenizer(texts, add_special_tokens=False, padding=False, truncation=False)["input_ids"]
        for piece, ids in zip(pieces, rows, strict=True):
            known = [number for number in ids if (found := self.pieces[number]) is not None and found.text]
            if known and known[0] == ids[0] and not piece.begins:
                first = self.pieces[known[0]]
                if first is not None and not _signs(first.text):
                    known[0] = self.exact.get((first.text, False), known[0])
            yield known or self.unknown


def _signs(text: str) -> bool:
    return not any(map(str.isalnum, text))


def match_vocabularies(old: Any, new: Any) -> Transfer:
    """Finds the old pieces that each piece of a new vocabulary is made of.

    Args:
        old, new: fast tokenizers.
    """
    known = _Old(old)
    pieces = pieces_of(new)
    parts: list[list[int]] = [list(known.unknown) for _ in pieces]
    open_pieces: dict[int, Piece] = {}
    for number, piece in enumerate(pieces):
        if piece is None:
            continue
        if not piece.text.strip():
            parts[number] = []
        elif (same := known.find(piece)) is not None:
            parts[number] = [same]
        else:
            open_pieces[number] = piece
    for number, ids in zip(open_pieces, known.split(list(open_pieces.values())), strict=True):
        parts[number] = ids
    for number, same in _roles(old, new).items():
        parts[number] = [] if same is None else [same]
    return Transfer(parts)


def _roles(old: Any, new: Any) -> dict[int, int | None]:
    """Special tokens of the new vocabulary → the old ones of the same role or, outside the roles, of the same name."""
    names = dict(zip(old.all_special_tokens, old.all_special_ids, strict=True))
    found = dict(zip(new.all_special_ids, map(names.get, new.all_special_tokens), strict=True))
    for role in _ROLES:
        ours, theirs = (
            next((number for name in role if (number := getattr(one, f"{name}_token_id")) is not None), None)
            for one in (new, old)
        )
        if ours is not None and theirs is not None:
            found[ours] = theirs
    return found


def same_tokenizer(first: Any, second: Any) -> bool:
    """Whether two fast tokenizers make the same ids of every text, cutting and padding aside."""
    rules = []
    for one in (first, second):
        parts = json.loads(one.backend_tokenizer.to_str())
        rules.append({name: part for name, part in parts.items() if name not in ("truncation", "padding")})
    return bool(rules[0] == rules[1]) and first.pad_token_id == second.pad_token_id


@torch.no_grad()
def refit_tables(model: SpectraModel | SpectraForMaskedLM, transfer: Transfer, pad_token_id: int) -> None:
    """Gives a model tables of the new vocabulary's size: token vectors, rarity, and the masked-LM head's bias.

    A text that holds a new piece holds all its parts, so the piece is at least as rare as the rarest of them: that is
    its rarity, until it is fitted anew. Positions, segments and everything above stay.

    Args:
        model: changed in place, config included.
        transfer: from its own vocabulary.
        pad_token_id: of the new vocabulary.
    """
    inner = model.model if isinstance(model, SpectraForMaskedLM) else model
    old = inner.encoder.embeddings.tokens.weight
    rows_VD = transfer.rows(old, empty=old.mean(0).float())
    size = len(rows_VD)
    tokens = nn.Embedding(size, rows_VD.shape[1], padding_idx=pad_token_id, _weight=rows_VD)
    tokens.weight.requires_grad_(old.requires_grad)
    inner.set_input_embeddings(tokens)
    prior = inner.entity.prior
    prior.idf = transfer.rows(prior.idf[:, None], empty=0.0, mode="max")[:, 0]
    for config in {id(one.config): one.config for one in (model, inner)}.values():
        config.vocab_size, config.pad_token_id = size, pad_token_id
    if isinstance(model, SpectraForMaskedLM):
        bias = model.lm_head.bias
        model.lm_head.bias = nn.Parameter(transfer.rows(bias[:, None], empty=float(bias.mean()))[:, 0])
        model.lm_head.decoder = nn.Linear(rows_VD.shape[1], size, bias=False, device=rows_VD.device)
        model.tie_weights()


def with_vocabulary(model: SpectraSentenceTransformer, tokenizer: Any) -> tuple[SpectraSentenceTransformer, Transfer]:
    """The model with another tokenizer, and how its token vectors came about.

    Args:
        model: changed in place; use what is returned.
        tokenizer: a fast one with a padding token, see `fresh.load_tokenizer`.
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
