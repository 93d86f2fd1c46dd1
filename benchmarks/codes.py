"""Recall of the true ten nearest among the first C by code: functions of the standard library, docstrings as queries.

    python benchmarks/codes.py [MODEL]

MODEL is a saved model or a checkpoint; by default MiniLM. Codes are fitted on the functions; no docstring is seen.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from spectra_nsa.heads.bridge import WIDTHS, HashBridge
from spectra_nsa.metrics.hashing import candidate_recall
from spectra_nsa.models.fit_codes import fit_codes
from spectra_nsa.models.starter import HUB_NAME
from spectra_nsa.models.warm_start import open_model
from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.python_env import environment_pairs
from spectra_nsa.training.precision import autocast, resolve_precision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=HUB_NAME)
    options = parser.parse_args()
    encoder = open_model(options.model)
    encoder.max_seq_length = min(encoder.max_seq_length or 128, 128)
    rows = environment_pairs("stdlib").dataset
    twice = near_duplicates(list(rows["anchor"]), None) | near_duplicates(list(rows["positive"]), None)
    rows = rows.select(np.flatnonzero(~twice))
    with autocast(encoder.device.type, resolve_precision("auto")):
        documents = torch.from_numpy(encoder.encode(list(rows["positive"]), normalize_embeddings=True))
        queries = torch.from_numpy(encoder.encode(list(rows["anchor"]), normalize_embeddings=True))
    wanted = (queries @ documents.T).topk(10).indices.numpy()
    size = documents.shape[1]
    torch.manual_seed(0)
    bridge = HashBridge(size + size // 2, size)
    for name in ("random hyperplanes", "fitted"):
        began = time.perf_counter()
        if name == "fitted":
            fit_codes(bridge, documents, documents)
            name += f" in {time.perf_counter() - began:.0f} s"
        with torch.no_grad():
            bits, floats = torch.where(bridge(documents) > 0, 1.0, -1.0), bridge(queries)
        for width in WIDTHS:
            for kind, side in (("Hamming", torch.where(floats > 0, 1.0, -1.0)), ("float × bits", floats)):
                found = candidate_recall(wanted, (side[:, :width] @ bits[:, :width].T).numpy())
                print(f"{name:20} {width:>3} bits  {kind:12}", {c: round(v, 3) for c, v in found.items()}, flush=True)


if __name__ == "__main__":
    main()
