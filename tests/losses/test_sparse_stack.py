"""The stack on sparse vectors: cached passes, the state of a checkpoint, several routes, silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.terms import MARGIN_SCORES, TEACHER_VECTORS, active_terms
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.losses.stack import LossStack, NotFiniteError
from spectra_nsa.models.sparse.build import inference_free, splade_from
from tests.builders import tiny_masked_lm
from tests.losses.terms.vectors import unit

QUERIES = ["open the file", "close a socket of the file and the list", "sort", "read text", "a model"]
DOCUMENTS = ["file open", "socket close", "list sort of text and token and vector and query", "text", "vector"]
NEGATIVES = ["query a document", "vector of a model", "token", "write the list", "the a of"]
EVERY = [
    f"loss.terms.{name}.weight=0.5"
    for name in ("sparse_margin_mse", "query_l1", "document_l1", "query_df_flops", "document_df_flops")
]
FREE = ["sparse.query_active=null", "sparse.document_active=null"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_masked_lm(tmp_path_factory.mktemp("masked-lm") / "model")


def exact(model: Any) -> Any:
    """Returns the model in training, without dropout."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


@pytest.fixture
def model(checkpoint: Path) -> Any:
    return exact(splade_from(checkpoint, max_length=32))


def recipe(*words: str) -> Recipe:
    return load_recipe(None, ["sparse.kind=splade", "sparse.query_active=9", "sparse.document_active=12", *words])


def stack_of(model: Any, *words: str, steps: int = 30, **options: Any) -> LossStack:
    chosen = recipe(*words)
    stack = LossStack(model, chosen.loss, active=active_terms(chosen), sparse=chosen.sparse, **options)
    stack.steps = steps
    return stack


def features(model: Any, *, teachers: bool = True) -> list[dict[str, Any]]:
    columns = [
        dict(model.preprocess(texts, task="document" if place else "query"))
        for place, texts in enumerate((QUERIES, DOCUMENTS, NEGATIVES))
    ]
    if teachers:
        for place, column in enumerate(columns):
            column[TEACHER_VECTORS] = unit(5, 12, seed=place)
    return columns


def train(stack: LossStack, model: Any, steps: range, lr: float = 3e-3) -> list[dict[str, float]]:
    """Takes steps of plain gradient descent, which has no state of its own; returns the figures of each."""
    found = []
    for stack.step in steps:
        model.zero_grad()
        torch.stack(list(stack(features(model)).values())).sum().backward()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.grad is not None:
                    weight -= lr * weight.grad
        found.append(stack.figures)
    return found


@pytest.mark.parametrize("words", [[], FREE], ids=["targets", "weights"])
@pytest.mark.parametrize("tokens", [1, 24, 10_000])
def test_cached_passes_are_exact_and_leave_the_same_weights(model: Any, words: list[str], tokens: int) -> None:
    gradients, values, figures = [], [], []
    for cached in (None, tokens):
        stack = stack_of(model, *EVERY, *words, cached=cached, teachers=((8, 0.5), (4, 0.5)))
        for stack.step in (0, 1):
            model.zero_grad()
            found = stack(features(model))
            torch.stack(list(found.values())).sum().backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
        values.append({name: float(value.detach()) for name, value in found.items()})
        figures.append(stack.figures)
    assert values[1] == pytest.approx(values[0], rel=1e-4) and figures[1] == pytest.approx(figures[0], rel=1e-4)
    assert len(values[0]) == 9 and all(value > 0 for value in values[0].values())
    for name, wanted in gradients[0].items():
        assert (gradients[1][name] - wanted).abs().max() <= 2e-5 * (1 + wanted.abs().max()), name


def test_a_restored_state_continues_bit_for_bit(checkpoint: Path, tmp_path: Path) -> None:
    model = exact(splade_from(checkpoint, max_length=32))
    stack = stack_of(model, *EVERY)
    train(stack, model, range(6))
    torch.save(stack.state(), tmp_path / "state.pt")
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    wanted = train(stack, model, range(6, 12))
    model.load_state_dict(weights)
    again = stack_of(model, *EVERY)
    again.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert train(again, model, range(6, 12)) == wanted
    assert wanted[0]["query_lambda"] != wanted[-1]["query_lambda"]


def test_figures_name_both_sides(model: Any) -> None:
    (figures,) = train(stack_of(model), model, range(1))
    names = ("active", "max_frequency", "lambda")
    assert set(figures) == {f"{side}_{name}" for side in ("query", "document") for name in names}
    assert 0 < figures["query_max_frequency"] <= 1 < figures["query_active"]


def test_the_forward_pass_of_an_evaluation_changes_no_state(model: Any) -> None:
    stack = stack_of(model)
    with torch.no_grad():
        assert stack(features(model))
    assert stack.figures == {}


def test_columns_take_their_own_route(checkpoint: Path) -> None:
    size = splade_from(checkpoint).get_embedding_dimension() or 0
    model = inference_free(splade_from(checkpoint, max_length=32), torch.linspace(0.5, 2.0, size)).train()
    seen: list[tuple[str, int]] = []
    whole = type(model).forward

    def watched(self: Any, input: dict[str, Any], **kwargs: Any) -> Any:
        seen.append((input["task"], len(input["input_ids"])))
        return whole(self, input, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "forward", watched)
        values = stack_of(model)(features(model))
        torch.stack(list(values.values())).sum().backward()
    assert sum(texts for task, texts in seen if task == "query") == len(QUERIES)
    assert sum(texts for task, texts in seen if task == "document") == len(DOCUMENTS) + len(NEGATIVES)
    static = model.static("query")
    assert static is not None and static.weight.grad is not None and static.weight.grad.any()


def test_silent_vectors_end_the_run_with_the_remedy(model: Any) -> None:
    words = [*FREE, "loss.terms.document_flops.weight=1e6", "loss.terms.query_flops.weight=0"]
    stack = stack_of(model, *words)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    with pytest.raises(SpectraError, match=r"vectors are silent.*lower loss.terms.\w+_flops.weight"):
        for stack.step in range(100):
            optimizer.zero_grad()
            torch.stack(list(stack(features(model)).values())).sum().backward()
            optimizer.step()
    with torch.no_grad():
        model[0].model.cls.predictions.bias.fill_(-1e3)
    with pytest.raises(SpectraError, match=r"query vectors are silent.*sparse.calibrate"):
        stack_of(model)(features(model))


def test_with_a_target_the_size_of_a_weight_does_not_matter(checkpoint: Path) -> None:
    found = []
    for weight in ("3e-4", "1e6"):
        model = exact(splade_from(checkpoint, max_length=32))
        stack = stack_of(model, f"loss.terms.document_flops.weight={weight}")
        found.append(train(stack, model, range(3)))
    assert found[0] == found[1]


def test_a_weight_of_zero_leaves_a_side_free(model: Any) -> None:
    stack = stack_of(model, "loss.terms.query_flops.weight=0")
    values = stack(features(model))
    assert "query_flops" not in values and "document_flops" in values and "query_lambda" not in stack.figures


def test_an_output_that_is_not_finite_is_named_and_leaves_no_trace(model: Any) -> None:
    stack = stack_of(model)
    with torch.no_grad():
        model[0].model.cls.predictions.bias[7] = float("inf")
    with pytest.raises(NotFiniteError, match="output 'sparse'"):
        stack(features(model))
    assert stack.figures == {}


def test_given_scores_are_learned_from_at_any_scale(model: Any) -> None:
    values = []
    for factor in (1.0, 100.0):
        columns = features(model, teachers=False)
        for column, scores in zip(
            columns[1:], torch.rand(2, 5, generator=torch.Generator().manual_seed(0)), strict=True
        ):
            column[MARGIN_SCORES] = factor * scores
        found = stack_of(model, "loss.terms.sparse_margin_mse.weight=1")(columns)
        values.append({name: float(value.detach()) for name, value in found.items()})
    assert {"sparse_kl", "sparse_margin_mse"} <= set(values[0])
    assert values[0] == pytest.approx(values[1], rel=1e-4)


class Toy(torch.nn.Module):
    """Sparse vectors that are weights themselves: a table of texts, and a bias for each term."""

    def __init__(self, texts: int = 24, terms: int = 300) -> None:
        super().__init__()
        torch.manual_seed(0)
        topics = torch.randn(texts, terms)
        self.texts = torch.nn.Parameter(0.7 * topics + 0.7 * torch.randn(2, texts, terms) + 0.4)
        self.bias = torch.nn.Parameter(torch.zeros(2, 1, terms))

    def forward(self, input: dict[str, Any]) -> dict[str, torch.Tensor]:
        side = int(input["task"] == "document")
        return {"sparse": (self.texts[side] + self.bias[side])[input["input_ids"][:, 0]].relu().log1p()}


def simulated(steps: int, lr: float, scale: float = 1.0) -> list[dict[str, float]]:
    """Trains the toy toward 30 active terms a query and 60 a document, and returns the figures of each step."""
    model = Toy()
    words = [
        f"loss.terms.sparse_semantic.weight={scale}",
        "sparse.query_active=30",
        "sparse.document_active=60",
        "sparse.scale=0.1",
    ]
    stack = stack_of(model, *words, steps=steps)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    generator, track = torch.Generator().manual_seed(1), []
    for stack.step in range(steps):
        ids = torch.randperm(24, generator=generator)[:16, None]
        columns = [
            {"input_ids": ids, "attention_mask": torch.ones_like(ids), "task": side} for side in ("query", "document")
        ]
        optimizer.zero_grad()
        torch.stack(list(stack(columns).values())).sum().backward()
        optimizer.step()
        decay.step()
        track.append(stack.figures)
    return track


@pytest.mark.parametrize(("steps", "lr"), [(300, 0.015), (300, 0.02)])
@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["loss", "hundredfold"])
def test_the_activity_reaches_its_target_and_stays_there(steps: int, lr: float, scale: float) -> None:
    track = simulated(steps, lr, scale)
    for side, target in (("query", 30), ("document", 60)):
        late = [figures[f"{side}_active"] for figures in track[-steps // 4 :]]
        assert late[-1] == pytest.approx(target, rel=0.1), (side, late)
        assert 0.8 * target < min(late) <= max(late) < 1.25 * target


@pytest.mark.parametrize(("steps", "lr"), [(60, 0.06), (60, 0.1), (100, 0.06)])
def test_a_short_run_ends_near_its_target_too(steps: int, lr: float) -> None:
    last = simulated(steps, lr)[-1]
    assert last["query_active"] == pytest.approx(30, rel=0.2)
    assert last["document_active"] == pytest.approx(60, rel=0.1)


def test_a_long_run_does_not_oscillate() -> None:
    late = [figures["document_active"] for figures in simulated(1_000, 0.015)[500:]]
    assert 0.9 * 60 < min(late) <= max(late) < 1.1 * 60
