"""Out-of-domain detection: our anomaly score and nine others, fitted only on texts of the domain.

    python benchmarks/detection.py [MODEL] [--data FOLDER] [--sets clinc150 newsgroups20] [--split test]
        [--unseen] [--seeds 3] [--json FILE]

MODEL is a saved model or a checkpoint, by default MiniLM. FOLDER contains the datasets; by default $SPECTRA_DATA,
otherwise ../shared/data. `spectra anomaly fit` fits and saves our score, and the loaded model computes it as the
outputs `anomaly` and `anomaly_p`. Seeds after the first use the same fit on the same vectors. Our score keeps a fifth
of the texts for calibration and a check; the scores of `detection_scores.py` use all.

clinc150: 15,000 texts of 150 intents; 4,500 more (inside) and 1,000 that fit no intent (outside). `--split val` uses
3,000 and 100 different texts, to make choices on. `--unseen` fits on the 3,000 texts that `detection_train.py` does not
train on. newsgroups20: 2,900 posts of five comp.* groups; later posts to the same groups (inside), and to
sci.electronics and misc.forsale (outside), the groups closest in topic. To save time, only the first 300 characters of
each post are used.

AUPR-out counts outside texts as positive, AUPR-in inside texts. FPR95 is the fraction of outside texts accepted at the
threshold that accepts 95 % of the inside texts. µs is the median processor time per text in batches of 128, products
the number of multiplications, both without the encoder. The last lines show the paired differences of AUROC from the
best other score on the same texts, and the rate at which p ≤ level flags an inside text, all with 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detection_scores import all_scores
from scipy.stats import binomtest

from spectra_nsa.core.files import write_json
from spectra_nsa.core.results import environment
from spectra_nsa.core.starter import HUB_NAME
from spectra_nsa.heads.anomaly import AnomalyHead
from spectra_nsa.heads.fit_anomaly import fit_anomaly
from spectra_nsa.metrics.detection import auroc, average_precision, false_positive_rate, paired_auroc_difference
from spectra_nsa.models.open import open_model
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.text.sources import load_source

LEVELS = (0.01, 0.05, 0.1)
BATCH = 128
NEAR = ("sci.electronics", "misc.forsale")
FIRST = 300  # characters of a post
UNSEEN = 20  # of the 100 texts of each intent of clinc150, not used in training


@dataclass(frozen=True, kw_only=True)
class Case:
    """The texts of one test: normal texts with their classes, and the inside and outside texts to distinguish."""

    name: str
    train: list[str]
    labels: np.ndarray
    inside: list[str]
    outside: list[str]


def rows_of(data: Path, name: str) -> tuple[list[str], np.ndarray]:
    rows = load_source(str(data / f"{name}.jsonl.gz")).dataset
    return list(rows["text"]), np.array(rows["label"])


def unseen(labels: np.ndarray) -> np.ndarray:
    """Marks the training texts of clinc150 that `detection_train.py` does not use: the same 20 of each intent."""
    generator = np.random.default_rng(0)
    rows = [generator.permutation(np.flatnonzero(labels == label))[:UNSEEN] for label in np.unique(labels)]
    return np.isin(np.arange(len(labels)), np.concatenate(rows))


def clinc150(data: Path, split: str, only_unseen: bool) -> Case:
    texts, labels = rows_of(data, "clinc150/train")
    kept = np.flatnonzero(unseen(labels)) if only_unseen else np.arange(len(labels))
    inside, outside = (rows_of(data, f"clinc150/{name}")[0] for name in (split, f"oos_{split}"))
    return Case(
        name=f"clinc150, {split}", train=[texts[row] for row in kept], labels=labels[kept], inside=inside,
        outside=outside,
    )  # fmt: skip


def newsgroups20(data: Path) -> Case:
    (texts, labels), (later, groups) = (rows_of(data, f"newsgroups20/{split}") for split in ("train", "test"))
    texts, later = ([text[:FIRST] for text in side] for side in (texts, later))
    kept = [row for row, label in enumerate(labels) if label.startswith("comp.")]
    return Case(
        name="newsgroups20, comp.* against sci.electronics and misc.forsale, test",
        train=[texts[row] for row in kept],
        labels=labels[kept],
        inside=[text for text, group in zip(later, groups, strict=True) if group.startswith("comp.")],
        outside=[text for text, group in zip(later, groups, strict=True) if group in NEAR],
    )


def semantic(encoder: SpectraSentenceTransformer, texts: list[str]) -> np.ndarray:
    return encoder.encode(texts, outputs=["semantic"], batch_size=BATCH)["semantic"]


def microseconds(score: Callable[[np.ndarray], Any], vectors_ND: np.ndarray) -> float:
    """Returns the median processor time per text over batches, without the first batch."""
    times = []
    for start in range(0, len(vectors_ND) - BATCH + 1, BATCH):
        start_time = time.process_time()
        score(vectors_ND[start : start + BATCH])
        times.append((time.process_time() - start_time) / BATCH * 1e6)
    return float(np.median(times[1:]))


def figures(name: str, scores: np.ndarray, inside: int, **more: Any) -> dict[str, Any]:
    """Returns a row of the table. The first `inside` scores are those of inside texts."""
    normal, strange = scores[:inside], scores[inside:]
    return {
        "score": name,
        "auroc": auroc(strange, normal),
        "aupr_out": average_precision(strange, normal),
        "aupr_in": average_precision(-normal, -strange),
        "fpr95": false_positive_rate(-normal, -strange),
        **more,
    }


def by_command(model: str, case: Case) -> tuple[AnomalyHead, np.ndarray, np.ndarray]:
    """Fits with the command line and loads the saved model. Returns the head, scores and p-values."""
    with tempfile.TemporaryDirectory() as name:
        source, fitted = Path(name) / "texts.jsonl", Path(name) / "fitted"
        source.write_text("\n".join(json.dumps({"text": text}) for text in case.train), encoding="utf-8")
        command = ["-m", "spectra_nsa", "anomaly", "fit", model, "--texts", str(source), "--output", str(fitted)]
        subprocess.run([sys.executable, *command, "--json"], check=True, stdout=subprocess.DEVNULL)
        loaded = open_model(str(fitted))
    found = loaded.encode(case.inside + case.outside, outputs=["anomaly", "anomaly_p"], batch_size=BATCH)
    return loaded.spectra.anomaly, found["anomaly"], found["anomaly_p"]


@torch.no_grad()
def our_rows(
    model: str, case: Case, train_ND: np.ndarray, both_ND: np.ndarray, seeds: int
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Returns our rows of the table, and the scores by name. Seed 0 uses the command line, the others the vectors."""
    rows, scores = [], {}
    for seed in range(seeds):
        if seed == 0:
            head, found, p = by_command(model, case)
        else:
            head = fit_anomaly(torch.from_numpy(train_ND), seed=seed).head
            found = head(torch.from_numpy(both_ND)).numpy()
            p = head.p_value(torch.from_numpy(found)).numpy()
        size, prototypes = both_ND.shape[1], head.prototypes.out_features
        name = f"ours, K = {prototypes}, seed {seed}"
        scores[name] = found
        row = figures(
            name,
            found,
            len(case.inside),
            microseconds=microseconds(lambda z_BD, head=head: head(torch.from_numpy(z_BD)), both_ND),
            products=products(head, size),
        )
        inside = p[: len(case.inside)]
        rows.append(row | {"alarms": [alarms(level, int((inside <= level).sum()), len(inside)) for level in LEVELS]})
        show(rows[-1])
    return rows, scores


def products(head: AnomalyHead, size: int) -> int:
    """Returns the number of multiply-adds per text."""
    K = head.prototypes.out_features
    relative = 2 * size * size + size * K + K * size * size // BATCH  # whitens the centers for each batch
    return size * K + (relative if head.method == "prototypes" else 0)


def alarms(level: float, count: int, texts: int) -> dict[str, Any]:
    """Returns the false-alarm rate with its exact binomial interval (Clopper and Pearson 1934)."""
    interval = binomtest(count, texts).proportion_ci(method="exact")
    return {"level": level, "rate": count / texts, "ci": [interval.low, interval.high]}


def show(row: dict[str, Any]) -> None:
    print(
        f"{row['score']:31} {row['auroc']:.4f}  {row['aupr_out']:.4f}    {row['aupr_in']:.4f}   {row['fpr95']:.4f}  "
        f"{row['microseconds']:6.1f}  {row['products']:>10,}",
        flush=True,
    )


def measured(model: str, case: Case, seeds: int) -> dict[str, Any]:
    encoder = open_model(model)
    train = semantic(encoder, case.train)
    began = time.process_time()
    both = semantic(encoder, case.inside + case.outside)
    per_text = (time.process_time() - began) / len(both) * 1000
    print(
        f"\n{case.name}: fitted on {len(case.train):,} texts; {len(case.inside):,} inside, {len(case.outside):,} "
        f"outside; the encoder takes {per_text:.2f} ms per text (processor time)\n"
        f"{'score':31} AUROC   AUPR-out  AUPR-in  FPR95       µs    products",
        flush=True,
    )
    rows, scores = our_rows(model, case, train, both, seeds)
    others = []
    for score in all_scores(train, case.labels):
        scores[score.name] = score.of(both)
        time_taken = microseconds(score.of, both)
        others.append(
            figures(score.name, scores[score.name], len(case.inside), microseconds=time_taken, products=score.products)
        )
        show(others[-1])
    strange = np.arange(len(both)) >= len(case.inside)
    differences = compared(rows, others, scores, strange)
    return {
        "set": case.name, "fitted_on": len(case.train), "inside": len(case.inside), "outside": len(case.outside),
        "encoder_ms": per_text, "scores": rows + others, "differences": differences,
    }  # fmt: skip


def compared(
    rows: list[dict[str, Any]], others: list[dict[str, Any]], scores: dict[str, np.ndarray], strange: np.ndarray
) -> list[dict[str, Any]]:
    """Compares each of our seeds with the best other score, and prints how often inside texts are flagged."""
    best = max(others, key=lambda row: row["auroc"])["score"]
    found = []
    for row in rows:
        gap = paired_auroc_difference(scores[row["score"]], scores[best], strange)
        found.append({"score": row["score"], "other": best, "auroc": gap.value, "ci": list(gap.ci)})
        print(f"{row['score']} − {best}: AUROC {gap.value:+.4f} ({gap.ci[0]:+.4f} to {gap.ci[1]:+.4f})")
    for row in rows:
        rates = ", ".join(f"{a['level']:g}: {a['rate']:.3f} ({a['ci'][0]:.3f}–{a['ci'][1]:.3f})" for a in row["alarms"])
        print(f"{row['score']}: false alarms at p ≤ {rates}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=HUB_NAME)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    parser.add_argument("--sets", nargs="+", choices=("clinc150", "newsgroups20"), default=["clinc150", "newsgroups20"])
    parser.add_argument("--split", choices=("test", "val"), default="test", help="the split of clinc150")
    parser.add_argument(
        "--unseen", action="store_true", help="clinc150: fit on the texts that detection_train.py does not use"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sets = []
    for name in options.sets:
        clinc = name == "clinc150"
        case = clinc150(options.data, options.split, options.unseen) if clinc else newsgroups20(options.data)
        sets.append(measured(options.model, case, options.seeds))
    if options.json:
        write_json(options.json, {"schema": 1, "model": options.model, "environment": environment(), "sets": sets})


if __name__ == "__main__":
    main()
