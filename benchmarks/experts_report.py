"""Compares the arms of an experiment on experts: differences from `dense` with intervals over seeds and queries.

    python benchmarks/experts_report.py FOLDER [--kind mixed] [--split test] [--baseline dense]

FOLDER has the `ARM-SEED-SPLIT.npz` files of `experts_interference.py` (kinds `mixed` and `own`) or of
`experts_distillation.py` (`agreement` and `mixed`). A figure is the mean over the domains. Intervals are hierarchical:
seeds are drawn with replacement, then queries within each domain, the same for both arms. p is two-sided, from the same
draws; Holm's correction is over the arms. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from spectra_nsa.metrics.effects import holm

DRAWS = 2000


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


def difference(
    arm: dict[int, dict[str, np.ndarray]], base: dict[int, dict[str, np.ndarray]], generator: np.random.Generator
) -> tuple[float, tuple[float, float], float]:
    """Returns the mean difference over common seeds and domains, its interval, and p."""
    seeds = sorted(set(arm) & set(base))
    domains = list(next(iter(arm.values())))
    gaps = {seed: {name: arm[seed][name] - base[seed][name] for name in domains} for seed in seeds}
    value = float(np.mean([np.mean([gaps[seed][name].mean() for name in domains]) for seed in seeds]))
    draws = np.empty(DRAWS)
    for at in range(DRAWS):
        queries = {
            name: generator.integers(len(gaps[seeds[0]][name]), size=len(gaps[seeds[0]][name])) for name in domains
        }
        chosen = generator.choice(seeds, size=len(seeds))
        draws[at] = np.mean([np.mean([gaps[seed][name][queries[name]].mean() for name in domains]) for seed in chosen])
    low, high = np.quantile(draws, [0.025, 0.975])
    p = 2 * min((draws <= 0).mean(), (draws >= 0).mean())
    return value, (float(low), float(high)), max(float(p), 1 / DRAWS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", default="mixed")
    parser.add_argument("--split", default="test")
    parser.add_argument("--baseline", default="dense")
    options = parser.parse_args()
    arms = read(options.folder, options.kind, options.split)
    if options.baseline not in arms:
        raise SystemExit(f"{options.folder} has no figures of {options.baseline} on {options.split}.")
    base, generator = arms.pop(options.baseline), np.random.default_rng(0)
    print(f"| arm | seeds | {options.kind} | less {options.baseline} | 95 % | p (Holm) |\n|---|---|---|---|---|---|")
    print(f"| {options.baseline} | {len(base)} | {np.mean([mean(of) for of in base.values()]):.4f} | | | |")
    found = {arm: difference(of, base, generator) for arm, of in arms.items()}
    adjusted = dict(zip(found, holm([p for _, _, p in found.values()]), strict=True))
    for arm, (value, (low, high), _) in found.items():
        figure = np.mean([mean(of) for of in arms[arm].values()])
        interval = f"{low:+.4f} to {high:+.4f}"
        print(f"| {arm} | {len(arms[arm])} | {figure:.4f} | {value:+.4f} | {interval} | {adjusted[arm]:.3f} |")


if __name__ == "__main__":
    main()
