"""Dense models trained apart become the experts of one, and the analysis finds out who was trained on what."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spectra_nsa as sp
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.encoder.experts.router import Router
from spectra_nsa.encoder.experts.spec import ExpertSpec
from spectra_nsa.report.experts.page import experts_page
from spectra_nsa.report.experts.summary import findings, layer_rows
from spectra_nsa.training.run import train
from spectra_nsa.workflows.moe.analyze import analyze
from spectra_nsa.workflows.moe.collect import Routes, collect_routes, vectors_of
from spectra_nsa.workflows.moe.dense import recover_dense
from spectra_nsa.workflows.moe.edits import at_random, by_token, permuted
from spectra_nsa.workflows.moe.interventions import Quality, _change
from spectra_nsa.workflows.moe.layers import layer_facts
from spectra_nsa.workflows.moe.mix import mix_models
from spectra_nsa.workflows.moe.texts import Domain, TextTable, text_table
from tests.builders import WORDS

DOMAINS = {"letters": list("abcdefghijklm"), "words": WORDS[:13]}


def write_pairs(path: Path, words: list[str], rows: int = 64) -> Path:
    """Writes pairs of texts of a few words each, which share one."""
    generator = random.Random(7)
    lines = []
    for row in range(rows):
        shared = words[row % len(words)]
        left, right = (" ".join([shared, *generator.sample(words, 4)]) for _ in range(2))
        lines.append(json.dumps({"anchor": left, "positive": right}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the runs of two models, each trained on one domain in its feed-forward networks only."""
    from tests.builders import bert_folder

    folder = tmp_path_factory.mktemp("mix")
    start = bert_folder(folder / "start")
    found = {}
    for name, words in DOMAINS.items():
        data = write_pairs(folder / f"{name}.jsonl", words)
        changes = ["train.parts=[ffn]", "train.batch=16", "train.epochs=6", "train.lr=1e-2", "train.fit_heads=0"]
        flags = {"model.start": str(start), "data.train": str(data), "output": str(folder), "name": name}
        found[name] = train(load_recipe(None, [*changes, "data.dev_rows=0"], flags=flags)).folder
    return found


def test_only_the_named_parts_are_trained(runs: dict[str, Path]) -> None:
    first, second = (dict(sp.load(run / "model").spectra.named_parameters()) for run in runs.values())
    changed = {name for name, weight in first.items() if not torch.equal(weight, second[name])}
    assert changed and all(".ffn." in name for name in changed)


def test_a_mixture_sends_each_text_to_its_own_model(runs: dict[str, Path], tmp_path: Path) -> None:
    facts = mix_models([str(run) for run in runs.values()], tmp_path / "mixed")
    assert facts["rest_apart"] == 0 and facts["layers"] == [0, 1]
    assert min(min(shares) for shares in facts["routing"].values()) == 1.0
    card = (tmp_path / "mixed" / "README.md").read_text(encoding="utf-8")
    assert "**Base model:** a mixture of letters, words" in card and "dataset_size" not in card
    mixed = sp.load(tmp_path / "mixed")
    for name, run in runs.items():
        texts = [" ".join(DOMAINS[name][at : at + 3]) for at in range(8)]
        assert np.abs(mixed.encode(texts) - sp.load(run / "model").encode(texts)).max() < 1e-6


@pytest.mark.parametrize("router", ["text_layer", "token"])
def test_other_routers_can_be_fitted(runs: dict[str, Path], tmp_path: Path, router: str) -> None:
    facts = mix_models([str(run) for run in runs.values()], tmp_path / "mixed", router=router, first=1)
    least = 1.0 if router == "text_layer" else 0.6  # [CLS] and [SEP] occur in all texts
    assert facts["layers"] == [1] and min(min(shares) for shares in facts["routing"].values()) >= least


def test_the_analysis_recovers_the_domains(runs: dict[str, Path], tmp_path: Path) -> None:
    mix_models([str(run) for run in runs.values()], tmp_path / "mixed")
    texts = [f"{name}={run.parent / f'{name}.jsonl'}" for name, run in runs.items()]
    document = analyze(str(tmp_path / "mixed"), texts, limit=40, pairs=40, rounds=5)
    json.dumps(document)
    for layer in document["layers"]:
        assert layer["domains"] == {"letters": [1.0, 0.0], "words": [0.0, 1.0]}
        assert layer["domain_information"]["value"] == pytest.approx(1, abs=0.01)
        assert layer["pair_agreement"]["value"] == 1.0 and layer["pair_agreement"]["random_pairs"] < 0.7
        assert layer["distance"]["weights"] > 0.01
    assert [path["experts"] for path in document["paths"]] == [[0, 0], [1, 1]]
    removed = {
        (cell["expert"], cell["domain"]): cell["change"]
        for cell in document["quality"]["ablation"]
        if cell["way"] == "removed"
    }
    assert removed[0, "letters"] != 0 or removed[1, "words"] != 0
    for figures in document["quality"]["subsets"].values():
        assert len(figures) == 2 and figures[0] == figures[1], "a domain needs only its own expert"
    html = experts_page(document).render()
    assert "What experts are worth" in html and "Routes" in html and "NaN" not in html
    assert len(layer_rows(document)) == 2 and any("domain" in line for line in findings(document))


@pytest.mark.parametrize("experts", [{"top_k": 2}, {"router": "smear"}, {"top_k": 2, "sliced": True}], ids=str)
def test_every_kind_of_experts_can_be_analyzed(
    make_bert: Callable[..., Path], runs: dict[str, Path], tmp_path: Path, experts: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"layer_routing": True, "adapters": 2, "pooling_kinds": ["max"]}
    model = sp.warm_start(make_bert(), ffn="moe", experts={"count": 4} | experts, **options)
    model.save_pretrained(str(tmp_path / "m"))
    texts = [f"{name}={run.parent / f'{name}.jsonl'}" for name, run in runs.items()]
    document = analyze(str(tmp_path / "m"), texts, limit=20, pairs=10, rounds=2)
    json.dumps(document)
    experts_page(document).render()
    assert set(document["gates"]) == {"depth_gate", "pooling_gate", "adapter_gate"}
    assert document["gates"]["adapter_gate"]["words"] == [1.0, 1.0]
    assert ("tokens" in document["layers"][0]) == (experts.get("router") != "smear")
    assert any("nearly copies" in line for line in findings(document))
    # Copies: nothing that is done to the choices matters, but silencing does.
    cells = document["quality"]["ablation"]
    assert all(abs(cell["change"]) < 1e-9 for cell in cells if cell["way"] == "removed")


def test_the_checkpoints_of_a_run_give_the_saturation(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "words.jsonl", DOMAINS["words"])
    changes = [
        "model.ffn=moe", "model.experts.count=2", "train.batch=16", "train.max_steps=4", "train.checkpoint_every=2",
        "train.evaluate_every=2", "train.fit_heads=0", "data.dev_rows=0", "train.lr=1e-2",
    ]  # fmt: skip
    flags = {"model.start": str(make_bert()), "data.train": str(data), "output": str(tmp_path), "name": "run"}
    train(load_recipe(None, changes, flags=flags))
    document = analyze(str(tmp_path / "run" / "model"), [f"words={data}"], limit=20, pairs=0, rounds=2)
    assert [row["step"] for row in document["saturation"]] == [2, 4]
    assert document["saturation"][-1]["layers"] == [1.0, 1.0]
    assert document["quality"] == {} and any("second --texts" in note for note in document["notes"])


def test_what_cannot_be_analyzed_is_refused_with_the_remedy(
    make_bert: Callable[..., Path], runs: dict[str, Path], tmp_path: Path
) -> None:
    words = next(iter(runs.values())).parent / "words.jsonl"
    with pytest.raises(SpectraError, match=r"no experts to analyze.*model\.ffn=moe"):
        analyze(str(runs["words"] / "model"), [f"words={words}"])
    sp.warm_start(make_bert(), adapters=2, layer_routing=True).save_pretrained(str(tmp_path / "gates"))
    with pytest.raises(SpectraError, match="--outputs depth_gate,adapter_gate"):
        analyze(str(tmp_path / "gates"), [f"words={words}"])
    with pytest.raises(UsageError, match="need the name of their domain, as in --texts medical="):
        analyze(str(runs["words"] / "model"), [str(words)])
    with pytest.raises(UsageError, match="twice"):
        analyze(str(runs["words"] / "model"), [f"a={words}", f"a={words}"])


def test_what_cannot_be_mixed_is_refused_with_the_remedy(
    make_bert: Callable[..., Path], runs: dict[str, Path], tmp_path: Path
) -> None:
    names = [str(run) for run in runs.values()]
    sp.warm_start(make_bert(), ffn="moe", experts={"count": 2}).save_pretrained(str(tmp_path / "moe"))
    sp.warm_start(make_bert(num_hidden_layers=1)).save_pretrained(str(tmp_path / "small"))
    texts = [str(run.parent / "words.jsonl") for run in runs.values()]
    with pytest.raises(UsageError, match="two models or more"):
        mix_models(names[:1], tmp_path / "out")
    with pytest.raises(UsageError, match="named twice"):
        mix_models(names[:1] * 2, tmp_path / "out")
    with pytest.raises(UsageError, match="need as many --texts"):
        mix_models(names, tmp_path / "out", texts=texts[:1])
    with pytest.raises(UsageError, match="is no run, so its training data is not known"):
        mix_models([names[0], str(tmp_path / "small")], tmp_path / "out")
    with pytest.raises(UsageError, match="name the run or model alone"):
        mix_models([f"words={names[0]}", names[1]], tmp_path / "out")
    with pytest.raises(SpectraError, match="has experts already"):
        mix_models([names[0], str(tmp_path / "moe")], tmp_path / "out", texts=texts)
    with pytest.raises(SpectraError, match="different shapes"):
        mix_models([names[0], str(tmp_path / "small")], tmp_path / "out", texts=texts)
    assert not (tmp_path / "out").exists()
    for output in (runs["words"], runs["words"] / "model"):
        with pytest.raises(UsageError, match="is the model that is read, which would be lost"):
            mix_models(names, output)
    with pytest.raises(UsageError, match="is the model that is read"):
        recover_dense(str(tmp_path / "moe"), tmp_path / "moe")


def test_a_dense_model_keeps_the_gates_of_texts(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"layer_routing": True, "adapters": 2, "pooling_kinds": ["max"]}
    model = sp.warm_start(make_bert(), ffn="moe", experts={"count": 2}, **options)
    for name, weight in model.spectra.named_parameters():
        if name in ("encoder.depth.router.weight", "pooling_mixture.router.weight", "adapters.router.weight"):
            torch.nn.init.normal_(weight)
    before = {name: value for name, value in model.spectra.state_dict().items() if name.endswith("router.weight")}
    model.save_pretrained(str(tmp_path / "m"))
    recover_dense(str(tmp_path / "m"), tmp_path / "dense")
    after = sp.load(tmp_path / "dense").spectra.state_dict()
    kept = [name for name in before if ".ffn." not in name]
    assert len(kept) == 3 and all(torch.equal(after[name], before[name]) for name in kept)


def test_a_barred_expert_is_not_chosen_whatever_its_bias() -> None:
    router = Router(ExpertSpec(count=4, top_k=2, balance_bias=True), 8, 0)
    assert router.bias is not None
    router.bias[0] = 0.6
    logits = torch.zeros(3, 4)
    logits[:, 0] = -torch.inf
    choice = router.choose(logits)
    assert (choice.chosen_MK != 0).all() and choice.weight_MK.isfinite().all()


def test_a_change_of_all_queries_alike_is_not_chance() -> None:
    assert _change(np.zeros(12), np.ones(12))["p"] < 0.001 and _change(np.ones(12), np.ones(12))["p"] == 1


def test_words_are_counted_if_a_higher_layer_uses_more_experts() -> None:
    ids = np.repeat(np.arange(2), 12)
    chosen = [np.zeros((24, 1), int), (np.arange(24) % 4)[:, None]]
    margin = np.ones((2, 24), np.float32)
    routes = Routes(text_N=np.repeat([0, 1], 12), ids_N=ids, chosen=chosen, entropy_LN=margin, margin_LN=margin)
    table = TextTable(texts=["a", "b"], domain_T=np.array([0, 1]), pairs_P2=np.empty((0, 2), int))
    facts = layer_facts(routes, 1, table, ["x", "y"], experts=4, special=[], rounds=2)
    assert facts["vocabulary"]["value"] == 0.25


def test_chance_heeds_that_the_tokens_of_a_text_depend_on_each_other() -> None:
    generator = np.random.default_rng(0)
    above = 0
    for _ in range(20):  # texts that each prefer an expert, and domains that say nothing
        text_N = np.repeat(np.arange(80), 30)
        favorite = generator.integers(4, size=80)[text_N]
        chosen = [np.where(generator.random(2400) < 0.5, favorite, generator.integers(4, size=2400))[:, None]]
        ones = np.ones((1, 2400), np.float32)
        routes = Routes(text_N=text_N, ids_N=None, chosen=chosen, entropy_LN=ones, margin_LN=ones)
        table = TextTable(
            texts=[str(at) for at in range(80)], domain_T=np.arange(80) % 2, pairs_P2=np.empty((0, 2), int)
        )
        facts = layer_facts(routes, 0, table, ["x", "y"], experts=4, special=[], rounds=20)["domain_information"]
        above += facts["value"] > facts["null_95"]
    assert above <= 4, "chance alone is above its 95 % quantile in about one case of twenty"


def test_a_document_of_several_queries_is_found_once(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert(), ffn="moe", experts={"count": 2})
    domain = Domain(name="x", queries=["a", "b", "c", "d"], documents=["a b c d"] * 4)
    assert Quality(model, [domain], 4).measure()["x"].tolist() == [1.0] * 4


def test_the_analysis_reads_texts_with_the_prompts_of_their_roles(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert(prompts={"query": "read the ", "document": "a file "}), ffn="moe", entity=True)
    table = text_table([Domain(name="x", queries=["open"], documents=["close a"])])
    vectors = vectors_of(model, table)
    assert np.allclose(vectors[0], model.encode_query(["open"])[0], atol=1e-6)
    assert np.allclose(vectors[1], model.encode_document(["close a"])[0], atol=1e-6)
    counts = np.bincount(collect_routes(model, table).text_N)
    plain = [len(model.tokenizer(text)["input_ids"]) for text in ("read the open", "a file close a")]
    assert counts.tolist() == plain


def test_exchanged_and_drawn_choices_keep_the_gate(make_bert: Callable[..., Path]) -> None:
    router = Router(ExpertSpec(count=4, top_k=2, balance_bias=True), 8, 1)
    assert router.bias is not None
    router.bias[2] = 0.5
    choice = router(torch.randn(50, 8))
    for edit in (permuted(0), at_random(0), by_token):
        other = edit(1, router, choice, torch.arange(50))
        assert torch.equal(other.weight_MK, choice.weight_MK) and not torch.equal(other.chosen_MK, choice.chosen_MK)
        assert (other.chosen_MK[:, 0] != other.chosen_MK[:, 1]).all()
    moved = permuted(0)(1, router, choice, None).chosen_MK
    pairs = {(int(a), int(b)) for a, b in zip(choice.chosen_MK.flatten(), moved.flatten(), strict=True)}
    assert len(pairs) == 4 and all(a != b for a, b in pairs)
