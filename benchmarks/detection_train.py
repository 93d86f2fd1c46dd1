"""A short training on clinc150's own texts, for `detection.py MODEL` to measure: does it tell strangers apart better?

    python benchmarks/detection_train.py NAME [KEY=VALUE ...] [--data FOLDER] [--model MODEL] [--passes 1]

Pairs are texts of the same intent. Another pair of the same intent would be a false negative, so rows come in blocks
that hold every intent once, and `data.group=block` with `train.batch` equal to a block makes each block one batch. 80
texts of each intent are trained on, each once a pass as an anchor; 20 are left for the fit (`detection.py --unseen`),
since texts that a model was trained on look more normal to it than new ones. Nothing outside the domain is used. Leaves
`runs/NAME/`; the recipe's keys may be changed by KEY=VALUE.
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
    """Pairs in blocks that hold each label once; each text is an anchor once a pass, beside another of its label."""
    generator = np.random.default_rng(0)
    rows = []
    for turn in range(passes):
        for label in np.unique(labels):
            own = generator.permutation(np.flatnonzero(labels == label))
            partners = np.roll(own, 1 + generator.integers(len(own) - 1))
            rows += [
                {"anchor": texts[a], "positive": texts[p], "block": f"{turn}-{place}"}
                for place, (a, p) in enumerate(zip(own, partners, strict=True))
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
