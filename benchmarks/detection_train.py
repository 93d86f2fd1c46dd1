"""A short training on the texts of clinc150, to test with `detection.py MODEL` whether detection improves.

    python benchmarks/detection_train.py NAME [KEY=VALUE ...] [--data FOLDER] [--model MODEL] [--passes 1]

Pairs are texts of the same intent. Another pair of the same intent would be a false negative, so the rows form blocks
that contain each intent once, and `data.group=block` with `train.batch` equal to the block size makes each block one
batch. 80 texts of each intent are used for training, each once per pass as an anchor. 20 are kept for fitting
(`detection.py --unseen`), because texts seen in training look more normal to a model than new ones. No texts from
outside the domain are used. The run is written to `runs/NAME/`; KEY=VALUE overrides keys of the recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from detection import rows_of, unseen

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.starter import HUB_NAME
from spectra_nsa.training.run import train


def blocks(texts: list[str], labels: np.ndarray, passes: int) -> list[dict[str, str]]:
    """Returns pairs in blocks that contain each label once.

    In each pass every text is the anchor of one pair, with another text of its label as the positive.
    """
    generator = np.random.default_rng(0)
    rows = []
    for number in range(passes):
        for label in np.unique(labels):
            members = generator.permutation(np.flatnonzero(labels == label))
            partners = np.roll(members, 1 + generator.integers(len(members) - 1))
            rows += [
                {"anchor": texts[a], "positive": texts[p], "block": f"{number}-{index}"}
                for index, (a, p) in enumerate(zip(members, partners, strict=True))
            ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    parser.add_argument("--model", default=HUB_NAME)
    parser.add_argument("--passes", type=int, default=1)
    options = parser.parse_args()
    texts, labels = rows_of(options.data, "clinc150/train")
    seen = np.flatnonzero(~unseen(labels))
    rows = blocks([texts[row] for row in seen], labels[seen], options.passes)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pairs.jsonl"
        source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        flags = {
            "name": options.name, "model.start": options.model, "data.train": str(source), "data.group": "block",
            "data.dev_rows": 0, "train.batch": len(np.unique(labels)),
            "model.anchor": False, "model.bridge": False, "model.entity": False, "model.anomaly": False,
        }  # fmt: skip
        result = train(load_recipe(None, options.changes, flags=flags))
    print(f"{len(rows):,} pairs, {result.seconds:.0f} s: {result.folder / 'model'}")


if __name__ == "__main__":
    main()
