"""Out-of-scope detection on CLINC150 by a frozen model, fitted on in-scope texts alone, K by the default rule.

    python benchmarks/anomaly.py [MODEL] [--data FOLDER] [--seeds 3]

MODEL is a saved model or a checkpoint; by default MiniLM. FOLDER holds `clinc150/`; by default $SPECTRA_DATA, else
../shared/data. Prints AUROC and FPR95, the share of out-of-scope texts let in where 95 % of the in-scope ones are (in
brackets the other convention: in-scope texts turned away where 95 % of the others are), beside the cosine to the
nearest training text, and how many of the 4,500 in-scope test texts p ≤ 0.05 calls strange.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from spectra_nsa.metrics.detection import auroc, false_positive_rate
from spectra_nsa.models.fit_anomaly import fit_anomaly
from spectra_nsa.models.starter import HUB_NAME
from spectra_nsa.models.warm_start import open_model
from spectra_nsa.text.sources import load_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=HUB_NAME)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    encoder = open_model(options.model)

    def vectors(name: str) -> torch.Tensor:
        texts = list(load_source(str(options.data / "clinc150" / f"{name}.jsonl.gz")).dataset["text"])
        return torch.from_numpy(encoder.encode(texts, outputs=["semantic"], batch_size=128)["semantic"])

    train, inside, outside = vectors("train"), vectors("test"), vectors("oos_test")

    def show(name: str, scores: np.ndarray, more: str = "") -> None:
        normal, strange = scores[: len(inside)], scores[len(inside) :]
        caught, kept = false_positive_rate(strange, normal), false_positive_rate(-normal, -strange)
        print(f"{name:24} AUROC {auroc(strange, normal):.4f}  FPR95 {kept:.4f} ({caught:.4f}){more}", flush=True)

    both = torch.cat([inside, outside])
    show("nearest text (kNN, k=1)", -(both @ train.T).amax(1).numpy())
    for seed in range(options.seeds):
        fit = fit_anomaly(train, seed=seed)
        with torch.no_grad():
            scores = fit.head(both)
            alarms = float((fit.head.p_value(scores[: len(inside)]) <= 0.05).float().mean())
        show(f"K = {fit.prototypes}, seed {seed}", scores.numpy(), f"  false alarms at p ≤ 0.05: {alarms:.3f}")


if __name__ == "__main__":
    main()
