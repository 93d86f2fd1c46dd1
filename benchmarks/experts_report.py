"""Compares the arms of an experiment on experts: differences from `dense` with intervals over seeds and queries.

    python benchmarks/experts_report.py FOLDER [--kind mixed] [--split test] [--baseline dense] [--arms ARM …]
        [--svg FILE]

FOLDER has the `ARM-SEED-SPLIT.npz` files of `experts_interference.py` (kinds `mixed` and `own`) or of
`experts_distillation.py` (`agreement` and `mixed`); the results that the log reports are in `log/data`. A figure is the
mean over the domains, over the seeds that all arms share. Intervals and p-values are those of
`spectra_nsa.metrics.effects`: queries are drawn within each domain, and the variance between seeds is pooled over the
arms. Holm's correction is over the arms. Prints a table in Markdown; `--svg` draws the differences too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from spectra_nsa.metrics.effects import Effect, holm, part_effects, reach
from spectra_nsa.report.svg import Estimate, forest

DRAWS = 2000
NAMES = {
    "specialists": "six models, one for each domain",
    "oracle": "expert = domain, given",
    "token": "each token, learned",
    "text": "each text, learned",
    "text_hash": "each text, random and fixed",
    "hash": "each token, by its id",
    "frozen": "each token, random and fixed",
    "smear": "all mixed for each text (SMEAR)",
    "smear_full_rate": "SMEAR, at dense's learning rate",
    "wide": "dense, as many weights",
}
KINDS = {
    "mixed": "nDCG@10 in the index of all domains",
    "own": "nDCG@10 in the domain's own index",
    "agreement": "agreement with the teacher",
}
STYLE = (
    "text{font:12px sans-serif;fill:#555} path{fill:none} .grid{stroke:#ddd} .axis{stroke:#888} "
    ".line{stroke:#2a6fb0;stroke-width:2;fill:#fff} .s1{stroke:#c2571a;fill:#c2571a}"
)


def read(folder: Path, kind: str, split: str) -> dict[str, dict[int, dict[str, np.ndarray]]]:
    """Returns by arm, seed and domain the figures of the queries."""
    found: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for path in sorted(folder.glob(f"*-{split}.npz")):
        arm, seed, _ = path.stem.rsplit("-", 2)
        with np.load(path) as arrays:
            own = {name.removeprefix(f"{kind}/"): arrays[name] for name in arrays if name.startswith(f"{kind}/")}
        if own:
            found.setdefault(arm, {})[int(seed)] = own
    return found


def mean(values: dict[str, np.ndarray]) -> float:
    return float(np.mean([of.mean() for of in values.values()]))


def draws_of(gaps: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Returns bootstrap draws of the mean difference: of the queries within each domain, the same for all seeds."""
    generator, domains = np.random.default_rng(0), list(gaps[0])
    by_domain = {name: np.mean([gap[name] for gap in gaps], axis=0) for name in domains}
    draws = [
        np.mean([values[generator.integers(len(values), size=len(values))].mean() for values in by_domain.values()])
        for _ in range(DRAWS)
    ]
    return np.array(draws)


def draw(effects: dict[str, Effect], adjusted: dict[str, float], options: argparse.Namespace) -> None:
    """Writes the differences as a picture; those that are sure after Holm's correction have a filled dot."""
    rows = [
        Estimate(name=NAMES.get(arm, arm), value=effect.value, ci=effect.ci, marked=adjusted[arm] < 0.05)
        for arm, effect in sorted(effects.items(), key=lambda item: -item[1].value)
    ]
    chart = forest(rows, x_label=f"{KINDS.get(options.kind, options.kind)}, minus {options.baseline}")
    start = chart.index(">") + 1
    opening = chart[: start - 1] + ' xmlns="http://www.w3.org/2000/svg">'
    options.svg.write_text(f"{opening}<style>{STYLE}</style>{chart[start:]}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", default="mixed")
    parser.add_argument("--split", default="test")
    parser.add_argument("--baseline", default="dense")
    parser.add_argument("--arms", nargs="+", help="compare only these")
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    arms = read(options.folder, options.kind, options.split)
    if options.arms:
        arms = {name: of for name, of in arms.items() if name in (options.baseline, *options.arms)}
    if options.baseline not in arms:
        raise SystemExit(f"{options.folder} has no figures of {options.baseline} on {options.split}.")
    base = arms.pop(options.baseline)
    seeds = sorted(set(base).intersection(*arms.values()))
    if not arms or not seeds:
        raise SystemExit(f"{options.folder} has no seed that all arms share.")
    gaps = {
        arm: [{name: of[seed][name] - base[seed][name] for name in base[seed]} for seed in seeds]
        for arm, of in arms.items()
    }
    queries = sum(len(values) for values in base[seeds[0]].values())
    differences = {arm: [mean(gap) for gap in of] for arm, of in gaps.items()}
    effects = part_effects(differences, {arm: draws_of(of) for arm, of in gaps.items()}, queries)
    adjusted = dict(zip(effects, holm([effect.p for effect in effects.values()]), strict=True))
    print(f"seeds {', '.join(map(str, seeds))}; {queries:,} queries or texts\n")
    print(f"| arm | {options.kind} | minus {options.baseline} | 95 % | p (Holm) |\n|---|---|---|---|---|")
    print(f"| {options.baseline} | {np.mean([mean(base[seed]) for seed in seeds]):.4f} | | | |")
    for arm, effect in effects.items():
        figure, (low, high) = np.mean([mean(arms[arm][seed]) for seed in seeds]), effect.ci
        print(f"| {arm} | {figure:.4f} | {effect.value:+.4f} | {low:+.4f} to {high:+.4f} | {adjusted[arm]:.3f} |")
    if options.svg is not None:
        draw(effects, adjusted, options)
    if len(seeds) > 1:
        print(f"\nsmallest effect seen with 80 %: {reach(list(effects.values()), target=0.01).smallest:.4f}")


if __name__ == "__main__":
    main()
