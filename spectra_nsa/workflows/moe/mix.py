"""Branch, train, mix: dense models that were trained apart become the experts of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.encoder.experts.spec import ExpertSpec
from spectra_nsa.models.experts.mix import RidgeGate, check_alike, distance_of_averaged, mix
from spectra_nsa.models.open import find_model, open_model
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.text.sources import load_source
from spectra_nsa.training.runs.model_card import public_name
from spectra_nsa.workflows.moe.collect import BATCH, collect_routes, expert_layers
from spectra_nsa.workflows.moe.dense import check_output, save_changed
from spectra_nsa.workflows.moe.edits import only, rerouted
from spectra_nsa.workflows.moe.texts import plain_table

ROUTERS = ("text", "text_layer", "token")
_HELD_OUT = 10  # every tenth row shows how well the router tells the models apart
_LEAST = 20  # texts of a model


def mix_models(
    sources: Sequence[str],
    output: str | Path,
    *,
    texts: Sequence[str] = (),
    router: str = "text",
    every: int = 1,
    first: int = 0,
    limit: int = 2000,
    ridge: float = 1e-3,
) -> dict[str, Any]:
    """Writes a model whose experts are the feed-forward networks of several dense models.

    Args:
        sources: folders of runs or models, trained from one start.
        output: the folder to write.
        texts: a source of texts for each model, in their order; empty takes the training data of the runs.
        router: ``"text"``, ``"text_layer"`` or ``"token"``, see `ExpertSpec`.
        every, first: which layers have experts, see `ExpertSpec`. The networks of other layers are averaged.
        limit: the most texts of each model that the router is fitted to.
        ridge: λ of the fit, as a multiple of the mean square of what the router reads.

    Returns:
        ``folder``, ``experts`` (the models in order), ``rest_apart`` (how far apart the averaged weights were),
        ``routing`` (by model and layer, the share of held-out choices that are right), ``held_out`` (by model, texts of
        rows that the router was not fitted to) and ``parameters``.

    Raises:
        UsageError: fewer than two models, not as many texts as models, or a folder that cannot be replaced.
        SpectraError: a model cannot be mixed with the others, or has no or too few texts.
    """
    check_output(output, sources)
    if len(sources) < 2:
        raise UsageError("a mixture needs two models or more: name their runs, trained apart from one start.")
    if texts and len(texts) != len(sources):
        raise UsageError(f"{len(sources)} models need as many --texts, in their order; there are {len(texts)}.")
    named = {name: _read_texts(name, texts[at] if texts else None, limit) for at, name in enumerate(sources)}
    if len(named) < len(sources):
        raise UsageError("a model is named twice: its experts would be equal.")
    models = {name: _open(name) for name in sources}
    check_alike(models)
    mixed = next(iter(models.values()))
    before = mixed.spectra.num_parameters()
    experts = ExpertSpec(count=len(sources), router=router, every=every, first=first)
    apart = distance_of_averaged(list(models.values()), experts)
    mix(list(models.values()), experts)
    _fit_routers(mixed, [fitted for fitted, _ in named.values()], ridge)
    routing = {name: _share_right(mixed, held_out, at) for at, (name, (_, held_out)) in enumerate(named.items())}
    save_changed(mixed, output, f"a mixture of {', '.join(public_name(name) for name in sources)}")
    return {
        "folder": str(output),
        "experts": list(sources),
        "layers": mixed.spectra.config.encoder_spec().expert_layers,
        "rest_apart": round(apart, 6),
        "routing": routing,
        "held_out": {name: len(held_out) for name, (_, held_out) in named.items()},
        "parameters": {"before": before, "after": mixed.spectra.num_parameters()},
    }


def _open(name: str) -> SpectraSentenceTransformer:
    folder = Path(name) / "model" if (Path(name) / "recipe.yaml").is_file() else Path(name)
    return open_model(find_model(str(folder), accept=("spectra",)))


def _read_texts(name: str, source: str | None, limit: int) -> tuple[list[str], list[str]]:
    """Returns texts of a model's domain, of all columns in turn: those for the fit, and those of other rows."""
    columns = None
    if source is None:
        path = Path(name) / "recipe.yaml"
        if "=" in name and not Path(name).exists():
            raise UsageError(f"{name}: name the run or model alone. Its folder is also the name of its expert.")
        if not path.is_file():
            raise UsageError(
                f"{name} is no run, so its training data is not known: name it with --texts, for each model."
            )
        data = load_recipe(path).data
        source, columns = data.train, data.columns
        if not source:
            raise UsageError(f"the recipe of {name} names no data.train: name texts with --texts, for each model.")
    rows = load_source(source, columns=columns, limit=limit)
    texts: dict[str, bool] = {}  # text → whether its first row is held out
    for number, row in enumerate(zip(*(rows.dataset[column] for column in rows.text_columns), strict=True)):
        texts |= {text: number % _HELD_OUT == 0 for text in row if text and text not in texts}
    kept = list(texts.items())[:limit]
    if len(kept) < _LEAST:
        raise SpectraError(f"{source} has {len(kept)} texts for the expert {name}; the router needs {_LEAST} or more.")
    return [text for text, held_out in kept if not held_out], [text for text, held_out in kept if held_out]


def _fit_routers(model: SpectraSentenceTransformer, samples: Sequence[Sequence[str]], ridge: float) -> None:
    """Fits each layer's gate to what it reads while the texts go through their own experts."""
    layers = expert_layers(model)
    gates = [RidgeGate(layer.spec.count, layer.router.shape[1]) for layer in layers]
    for label, texts in enumerate(samples):

        def note(at: int, label: int = label) -> Callable[..., None]:
            return lambda router, inputs: gates[at].add(inputs[0], label)

        with ExitStack() as stack:
            for at, layer in enumerate(layers):
                stack.callback(layer.router.register_forward_pre_hook(note(at)).remove)
            stack.enter_context(rerouted(model, only([[label]] * len(layers))))
            model.encode(list(texts), batch_size=BATCH, precision="fp32")
    for layer, gate in zip(layers, gates, strict=True):
        assert layer.router.weight is not None
        layer.router.weight.data.copy_(gate.solve(ridge))


@torch.inference_mode()
def _share_right(model: SpectraSentenceTransformer, texts: Sequence[str], label: int) -> list[float]:
    """Returns by layer the share of the choices for texts that are their own expert."""
    routes = collect_routes(model, plain_table(texts), label="checking the router")
    return [round(float((chosen_NK[:, 0] == label).mean()), 4) for chosen_NK in routes.chosen]
