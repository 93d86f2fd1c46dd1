"""The encoder against transformers' BERT, and the laws of docs/model.md, section 1."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import BertConfig, BertModel

from spectra_nsa.encoder.context import apply_rotary, positions_of, rotary_tables
from spectra_nsa.encoder.encoder import Encoder
from spectra_nsa.encoder.experts.spec import ROUTERS, ExpertSpec
from spectra_nsa.encoder.kernels import attend
from spectra_nsa.encoder.spec import EncoderSpec
from spectra_nsa.models.bert_adapter import config_from_bert, encoder_from_bert, encoder_to_bert
from spectra_nsa.models.config import SpectraConfig

SPEC = EncoderSpec(vocab_size=97, hidden_size=32, layers=3, heads=4, ffn_size=64, max_positions=40)
SHAPES = [
    SPEC,
    dataclasses.replace(SPEC, norm="pre", position="rope", ffn="geglu", type_vocab_size=0, norm_eps=1e-5),
    dataclasses.replace(SPEC, norm="pre", ffn="geglu"),
    dataclasses.replace(SPEC, position="rope", activation="gelu_tanh"),
    *(dataclasses.replace(SPEC, ffn="moe", experts=ExpertSpec(count=4, router=router)) for router in ROUTERS),
    dataclasses.replace(SPEC, ffn="moe", experts=ExpertSpec(count=4, top_k=2, sliced=True, every=2)),
    dataclasses.replace(SPEC, norm="pre", ffn="moe", experts=ExpertSpec(count=3, top_k=2, kind="geglu", shared=True)),
]


def shape_name(spec: EncoderSpec) -> str:
    experts = f"-{spec.experts.router}{spec.experts.top_k}" if spec.ffn == "moe" else ""
    return f"{spec.norm}-{spec.position}-{spec.ffn}{experts}"


def make(spec: EncoderSpec) -> Encoder:
    torch.manual_seed(0)
    return Encoder(spec).eval()


def random_batch(lengths: list[int], width: int, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths) + width)
    ids = torch.randint(1, 97, (len(lengths), width), generator=generator)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, n in enumerate(lengths):
        mask[row, width - n if left else 0 : width if left else n] = 1
    return ids * mask, mask


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_hidden_states_are_berts_at_every_depth(activation: str) -> None:
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, hidden_act=activation,
    )  # fmt: skip
    bert = BertModel(config).eval()
    ours = Encoder(SpectraConfig(**config_from_bert(config.to_dict())).encoder_spec()).eval()
    ours.load_state_dict(encoder_from_bert(bert.state_dict(), 3))
    ids, mask = random_batch([5, 17, 40, 1], 40)
    segments = (torch.arange(40) > 9).long().expand(4, -1)
    theirs = bert(ids, attention_mask=mask, token_type_ids=segments, output_hidden_states=True).hidden_states
    for mine, wanted in zip(ours(ids, mask, segments).states, theirs, strict=True):
        assert (mine - wanted)[mask.bool()].abs().max() <= 1e-5


def test_weights_return_to_bert_unchanged() -> None:
    bert = BertModel(BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)).state_dict()
    back = encoder_to_bert(encoder_from_bert(bert, 2), 2)
    kept = {name for name in bert if not name.startswith("pooler") and "_ids" not in name}
    assert set(back) == kept
    assert all(torch.equal(back[name], bert[name]) for name in kept)


def check_batch_invariance(encoder: Encoder, left: bool) -> None:
    """Each text's states alone are those among neighbours and padding."""
    ids, mask = random_batch([3, 11, 29, 1, 17], 29, left)
    together = encoder(ids, mask).states[-1]
    for row in range(len(ids)):
        real = mask[row].bool()
        alone = encoder(ids[row, real][None], mask[row, real][None]).states[-1][0]
        assert torch.cosine_similarity(alone, together[row, real], dim=-1).min() >= 1 - 1e-6
        assert (alone - together[row, real]).abs().max() <= 1e-5


@pytest.mark.parametrize("spec", SHAPES, ids=shape_name)
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_padding_and_neighbours_change_nothing(spec: EncoderSpec, left: bool) -> None:
    check_batch_invariance(make(spec), left)


def test_positions_start_at_the_first_real_token() -> None:
    mask = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 1]])
    assert positions_of(mask).tolist() == [[0, 1, 2], [0, 0, 0], [0, 1, 2]]


def test_rotation_depends_on_distance_only() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(i: int, j: int) -> torch.Tensor:
        turn = [apply_rotary(x, rotary_tables(torch.tensor([[p]]), 8, 10_000.0)) for x, p in ((q, i), (k, j))]
        return (turn[0] * turn[1]).sum()

    assert torch.allclose(score(3, 7), score(103, 107), atol=1e-4)
    assert not torch.allclose(score(3, 7), score(3, 8), atol=1e-3)


def test_rotation_against_complex_numbers() -> None:
    x = torch.randn(1, 1, 5, 8, dtype=torch.float32)
    positions = torch.arange(5)[None]
    angles = positions[0, :, None].double() * 10_000.0 ** -(torch.arange(4).double() / 4)
    turned = torch.complex(x[..., :4].double(), x[..., 4:].double()) * torch.polar(torch.ones_like(angles), angles)
    wanted = torch.cat((turned.real, turned.imag), dim=-1)
    assert (apply_rotary(x, rotary_tables(positions, 8, 10_000.0)).double() - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("masked", [False, True])
def test_attention_against_its_definition_in_float64(masked: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 8) for _ in range(3))
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    if masked:
        mask[1, ..., 4:] = False
    scores = (q.double() @ k.double().mT / 8**0.5).masked_fill(~mask, -torch.inf)
    wanted = scores.softmax(-1) @ v.double()
    assert (attend(q, k, v, mask if masked else None).double() - wanted).abs().max() < 1e-6


def test_bf16_training_attention_keeps_dtype_and_gradient() -> None:
    q, k, v = (torch.randn(1, 2, 5, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    out = attend(q, k, v, None)
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and v.grad is not None and v.grad.abs().sum() > 0


@pytest.mark.parametrize("spec", SHAPES, ids=shape_name)
def test_gradient_checkpointing_changes_no_gradient(spec: EncoderSpec) -> None:
    gradients = []
    for switch in (False, True):
        encoder = make(dataclasses.replace(spec, hidden_dropout=0.0, attention_dropout=0.0)).train()
        encoder.gradient_checkpointing = switch
        encoder._gradient_checkpointing_func = lambda f, *a: torch.utils.checkpoint.checkpoint(
            f, *a, use_reentrant=False
        )
        ids, mask = random_batch([4, 9], 9)
        encoder(ids, mask).states[-1].square().sum().backward()
        gradients.append([weight.grad.clone() for weight in encoder.parameters() if weight.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_dropout_is_off_in_evaluation_and_on_in_training() -> None:
    encoder = make(SPEC)
    ids, mask = random_batch([6], 6)
    assert torch.equal(encoder(ids, mask).states[-1], encoder(ids, mask).states[-1])
    encoder.train()
    assert not torch.equal(encoder(ids, mask).states[-1], encoder(ids, mask).states[-1])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"norm": "poost"}, "post"),
        ({"attention": "plan"}, "plain"),
        ({"heads": 5}, "multiple"),
        ({"ffn": "glu"}, "geglu"),
        ({"ffn": "moe", "experts": ExpertSpec(first=3)}, "no layer"),
        ({"ffn": "moe", "ffn_size": 65, "experts": ExpertSpec(count=4, top_k=2, sliced=True)}, "slices"),
    ],
)
def test_impossible_shapes_are_refused_with_a_remedy(change: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        dataclasses.replace(SPEC, **change)
