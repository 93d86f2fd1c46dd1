"""The general quality of a model trained on code: STS-B dev, compared with the checkpoint it started from.

    python benchmarks/general_quality.py runs/quickstart/model [--data FOLDER]

FOLDER contains `stsb/dev.jsonl.gz` (sentence1, sentence2, score); by default $SPECTRA_DATA, otherwise ../shared/data.
The exit status is 1 if the trained model is more than 0.01 below the checkpoint.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.evaluation.run import evaluate
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.evaluation.tasks import tasks_from
from spectra_nsa.models.sentence import load
from spectra_nsa.models.warm_start import warm_start

ALLOWED_LOSS = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    options = parser.parse_args()
    start, _ = starter_checkpoint()
    systems = [DenseSystem("trained", load(options.model)), DenseSystem("start", warm_start(start))]
    tasks, notes = tasks_from([f"sts={options.data / 'stsb' / 'dev.jsonl.gz'}"])
    measured = evaluate(systems, tasks, notes=notes)
    values = {r.system: r.value for r in measured.results if r.metric == "spearman"}
    change = values["trained"] - values["start"]
    print(f"STS-B dev, Spearman: start {values['start']:.4f}, trained {values['trained']:.4f}, change {change:+.4f}")
    sys.exit(0 if change >= -ALLOWED_LOSS else 1)


if __name__ == "__main__":
    main()
