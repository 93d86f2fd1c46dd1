"""The effect of each part of the model at the mini size: `spectra ablate` on the recipe of the quickstart.

    python benchmarks/ablation.py [--pairs 4000] [--size NAME] [--work FOLDER] [--data FOLDER]
        [OPTION OF spectra ablate …]

Trains MiniLM for one epoch on pairs from installed packages (docstring, function), with three seeds, toggling one part
at a time. Evaluates on 2,500 pairs of held-out packages (nDCG@10) and on STS-B dev (Spearman), next to the untrained
checkpoint and BM25. With `--size`, the model has the size of that preset and random weights, and the learning rate is
5e-4; then the parts of the backbone have an effect from the first step. FOLDER contains `stsb`; by default
$SPECTRA_DATA, otherwise ../shared/data. A stopped run resumes like `spectra ablate`, which receives all other options,
such as --parts, --seeds or --dry-run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from dev_packages import split_packages

from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.workflows.quickstart.run import QUICKSTART_RECIPE

PARTS = (
    "spectral,conv,depth_mix,entity,attention_pooling,entropy_pooling,matryoshka,anchor-joined,bridge-joined,"
    "both_directions"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4_000)
    parser.add_argument("--size")
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    options, more = parser.parse_known_args()
    options.work.mkdir(parents=True, exist_ok=True)
    train, dev = options.work / f"train-{options.pairs}.jsonl", options.work / "dev.jsonl"
    if not (train.is_file() and dev.is_file()):
        rest, held_out = split_packages(options.pairs)
        rest.to_json(train)
        held_out.to_json(dev)
    overrides = [f"data.train={train}", "data.dev_rows=0", "monitor.rows=0", "train.epochs=1"]
    overrides += ["train.fit_heads=0"]  # codes are not measured here
    if options.size is None:
        overrides.append(f"model.start={starter_checkpoint()[0]}")
    else:
        overrides += ["model.start=null", f"model.size={options.size}", "train.lr=5e-4"]
    tasks = ["--task", f"pairs={dev}", "--task", f"sts={options.data / 'stsb' / 'dev.jsonl.gz'}"]
    output = ["--output", str(options.work / f"{options.size or 'mini'}-{options.pairs}")]
    if "--parts" not in more:
        more = ["--parts", PARTS, *more]
    command = [
        sys.executable,
        "-m",
        "spectra_nsa",
        "ablate",
        str(QUICKSTART_RECIPE),
        *overrides,
        *tasks,
        *output,
        *more,
    ]
    raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
