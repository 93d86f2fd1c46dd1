"""A training step of a sparse encoder: ours against the stock trainer's, in CPU time and memory.

    python benchmarks/sparse_step.py [--start tiny|minilm] [--rounds 3] [--steps 4] [--length 64] [--json FILE]

Both train the same SPLADE model on the same batches of 64 pairs of a docstring and its function, in bf16, without
dropout, by InfoNCE on dot products with FLOPS regularizers of queries and documents at fixed weights. The stock trainer
is `SparseEncoderTrainer` with `SpladeLoss`. From MiniLM, both start from the same head in closed form.

Each system runs in a process of its own, one thread, alternating over the rounds. Figures are medians; the ratio is the
median over the rounds. Memory is the peak of the process less that before the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH, WARM_UP = 64, 2
QUERY_WEIGHT, DOCUMENT_WEIGHT = 5e-5, 3e-5
SYSTEMS = ("stock", "spectra")


def run(system: str, start: str, steps: int, length: int) -> dict[str, float]:
    """Trains some steps and returns the CPU seconds of one and the gigabytes that they added."""
    import torch
    from transformers import TrainerCallback

    from spectra_nsa.text.readers.python_env import environment_pairs

    torch.set_num_threads(1)
    rows = environment_pairs("stdlib").dataset.shuffle(seed=0).select_columns(["anchor", "positive"])
    rows = rows.select(range(BATCH * (steps + WARM_UP)))
    moments: list[float] = []
    before: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            before.append(_peak())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            moments.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        trainer = (_ours if system == "spectra" else _stock)(start, rows, steps + WARM_UP, length, Path(folder))
        trainer.add_callback(Clock())
        trainer.train()
    return {"cpu_seconds": (moments[-1] - moments[WARM_UP - 1]) / steps, "gigabytes": _peak() - before[0]}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _stock(start: str, rows: Any, steps: int, length: int, folder: Path) -> Any:
    from sentence_transformers import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss

    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = SparseEncoder(start, device="cpu", config_kwargs=no_dropout)
    model.max_seq_length = length
    loss = SpladeLoss(
        model,
        SparseMultipleNegativesRankingLoss(model, scale=1.0),
        document_regularizer_weight=DOCUMENT_WEIGHT,
        query_regularizer_weight=QUERY_WEIGHT,
    )
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=2e-5, bf16=True,
        use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True, logging_strategy="no", seed=0,
    )  # fmt: skip
    return SparseEncoderTrainer(model=model, args=arguments, train_dataset=rows, loss=loss)


def _ours(start: str, rows: Any, steps: int, length: int, folder: Path) -> Any:
    from transformers.trainer_utils import SaveStrategy

    from spectra_nsa.config.recipe import load_recipe
    from spectra_nsa.training.data.rows import TrainingData
    from spectra_nsa.training.jobs.sparse import SparseJob
    from spectra_nsa.training.loop.plan import RunSetup

    keys = [
        f"model.start={start}", "model.dropout=0", f"model.max_length={length}", f"train.max_steps={steps}",
        f"train.batch={BATCH}", "train.precision=bf16", "train.lr=2e-5", "train.log_every=1000000", "monitor.rows=0",
        "train.passes_per_batch=4", "sparse.query_active=null", "sparse.document_active=null", "sparse.calibrate=0",
        "sparse.highest_df=null", f"loss.terms.query_flops.weight={QUERY_WEIGHT}",
        f"loss.terms.document_flops.weight={DOCUMENT_WEIGHT}",
    ]  # fmt: skip
    recipe = load_recipe(None, keys)
    job = SparseJob(recipe, TrainingData(train=rows, dev=None, dev_kind=None, quarantined=0))
    job.load_rows(None)
    job.open_model()
    job.prepare(resumed=False)
    trainer = job.build_trainer(RunSetup(folder=folder))
    trainer.args.save_strategy = SaveStrategy.NO
    return trainer


def save_start(name: str, folder: Path) -> None:
    """Writes the SPLADE model that both systems start from."""
    from spectra_nsa.core.starter import starter_checkpoint
    from spectra_nsa.models.sparse.build import splade_from
    from spectra_nsa.models.sparse.calibrate import calibrate
    from spectra_nsa.models.sparse.closed_form import fit_closed_form_head
    from spectra_nsa.models.sparse.names import sparse_start
    from spectra_nsa.text.readers.python_env import environment_pairs

    if name == "tiny":
        splade_from(sparse_start("tiny")[0], max_length=128).save_pretrained(str(folder))
        return
    model = splade_from(starter_checkpoint()[0], max_length=128)
    texts = environment_pairs("stdlib").dataset["positive"][:]
    fit_closed_form_head(model, texts, precision="auto")
    calibrate(model, texts[:256], 150)
    model.save_pretrained(str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", choices=("tiny", "minilm"), default="minilm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--one", choices=SYSTEMS, help=argparse.SUPPRESS)  # a system's own process
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one, options.folder, options.steps, options.length)))
        return
    found: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
    with tempfile.TemporaryDirectory() as folder:
        save_start(options.start, Path(folder) / "start")
        for number in range(options.rounds):
            for system in SYSTEMS:
                command = [sys.executable, __file__, "--one", system, "--folder", f"{folder}/start"]
                command += ["--steps", str(options.steps), "--length", str(options.length)]
                threads = {"OMP_NUM_THREADS": "1"}
                out = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | threads).stdout
                found[system].append(json.loads(out.splitlines()[-1]))
                print(f"round {number + 1}  {system:8} {found[system][-1]}", flush=True)
    for figure in ("cpu_seconds", "gigabytes"):
        medians = {system: statistics.median(row[figure] for row in found[system]) for system in SYSTEMS}
        pairs = zip(found["stock"], found["spectra"], strict=True)
        ratio = statistics.median(stock[figure] / max(ours[figure], 1e-3) for stock, ours in pairs)
        print(f"{figure}: stock {medians['stock']:.2f}, spectra {medians['spectra']:.2f}, ratio {ratio:.1f}")
    if options.json:
        options.json.write_text(json.dumps({"start": options.start, **found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
