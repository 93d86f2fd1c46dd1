"""The use of each output of one forward pass, shown on the functions of the standard library.

spectra codes fit runs/quickstart/model --corpus python:stdlib --output ready
spectra anomaly fit ready --texts python:stdlib
python examples/01_named_outputs.py ready
"""

from __future__ import annotations

import sys

import numpy as np

import spectra_nsa as sp
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.index.cascade import hamming_nearest
from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.readers.python_env import environment_pairs

QUERIES = ["POP3 uidl", "gzip mtime", "getaddrinfo", "RFC 2822 date"]
FUNCTION = "shutil.rmtree"
TEXTS = [
    "def count_lines(path):\n    with open(path) as file:\n        return sum(1 for _ in file)",
    "SELECT name, price FROM products WHERE price > 10 ORDER BY name",
    "Add the eggs one at a time, beating well after each.",
]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    model = sp.load(sys.argv[1])
    rows = environment_pairs("stdlib").dataset
    twice = near_duplicates(list(rows["anchor"]), None) | near_duplicates(list(rows["positive"]), None)
    rows = rows.select(np.flatnonzero(~twice))
    names = list(rows["name"])
    with autocast(model.device.type, resolve_precision("auto")):
        documents = model.encode_document(list(rows["positive"]), outputs=["semantic", "entity", "fast", "fast_logits"])
        docstrings = model.encode_query(list(rows["anchor"]), outputs=["semantic", "entity"])
        asked = model.encode_query(QUERIES, outputs=["semantic", "entity"])

    print("Searching by meaning, and by names and rare terms")
    for number, query in enumerate(QUERIES):
        print(f"  {query}")
        for output in ("semantic", "entity"):
            order = np.argsort(-(documents[output] @ asked[output][number]))[:3]
            print(f"    {output:8}  {', '.join(names[i] for i in order)}")
    row = np.arange(len(names))
    first_ten = {}
    for output in ("semantic", "entity"):
        scores = docstrings[output] @ documents[output].T
        first_ten[output] = (scores > scores[row, row][:, None]).sum(1) < 10
    semantic, entity = first_ten["semantic"], first_ten["entity"]
    print(
        f"  the ten best results contain the function for {semantic.sum():,} of {len(names):,} docstrings by semantic,"
    )
    print(f"  for {entity.sum():,} by entity, for {(entity & ~semantic).sum():,} only by entity")

    print(f"\nNeighbors of {FUNCTION} by Hamming distance, 64 bits")
    index = names.index(FUNCTION)
    codes = np.ascontiguousarray(documents["fast"][:, :8])
    for i in hamming_nearest(documents["fast_logits"][index : index + 1, :64], codes, 6)[0]:
        differing = int(np.unpackbits(codes[i] ^ codes[index]).sum())
        cosine = documents["semantic"][i] @ documents["semantic"][index]
        print(f"  {differing:2} of 64 bits differ, cosine {cosine:.2f}  {names[i]}")

    print("\nOut-of-domain texts")
    for text, p, outside, vector in zip(
        TEXTS, *(model.encode_document(TEXTS, outputs=["anomaly_p", "is_ood", "semantic"]).values()), strict=True
    ):
        nearest = int(np.argmax(documents["semantic"] @ vector))
        cosine = documents["semantic"][nearest] @ vector
        print(f"  p {p:.4f} {'outside' if outside else 'normal '}  {text.splitlines()[0]}")
        print(f"           nearest: {names[nearest]}, cosine {cosine:.2f}")


if __name__ == "__main__":
    main()
