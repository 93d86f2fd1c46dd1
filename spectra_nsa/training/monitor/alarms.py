"""When a run's figures call for a warning, and what the warning says. Rules over logged rows; nothing is measured here.

The thresholds are rules of thumb, set so that the healthy runs of the tests raise none; they stop nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
WINDOW = 10  # logged rows that are compared with others
LEAST_RANK = 0.1  # of what the sample allows
ONE_WAY = 1.5  # effective rank: all vectors on one line, however small the sample
LOST_RANK = 0.5  # of the highest so far
CONE = 0.9  # mean cosine of distinct texts
TWINS = 0.1  # share of texts with another at cosine 0.999
DEAD_BITS = 0.1
BIT_STEPS = 100  # the hash starts with directions that know nothing of the texts, and learns slowly
IDLE_ANCHORS = 0.3  # entropy of their use
SPIKE = 10.0  # times the median gradient norm
SLOW = 0.5  # of the median speed
MISSING = float("nan")  # compares false with everything


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong now.

    Attributes:
        kind: a word for it, the same each time.
        message: what happened, with the figures.
        remedy: what to do.
    """

    kind: str
    message: str
    remedy: str


def alarms(rows: Sequence[Row], health: Sequence[Row], terms: Collection[str]) -> list[Alarm]:
    """What is wrong by the latest rows.

    Args:
        rows: the latest rows of training, in order, as they stand in `metrics.jsonl`.
        health: all rows of health measures, in order.
        terms: the loss terms that take part; parts that none trains are not judged.
    """
    found = list(_of_training(rows))
    if health:
        found += _of_health([_numbers(row) for row in health], terms, int(health[-1].get("step", 0)))
    return found


def _numbers(row: Row) -> dict[str, float]:
    return {key.removeprefix("health_"): float(value) for key, value in row.items() if key.startswith("health_")}


def _of_health(measures: Sequence[Mapping[str, float]], terms: Collection[str], step: int) -> Iterator[Alarm]:
    """One alarm for the vectors; the heads are judged where the vectors are well, since they live on them."""
    ill = _of_vectors(measures)
    if ill is not None:
        yield ill
        return
    last = measures[-1]
    if "fast" in terms and step >= BIT_STEPS and last.get("bits_dead", MISSING) > DEAD_BITS:
        yield Alarm(
            "dead bits",
            f"{last['bits_dead']:.0%} of the `fast` bits are the same for 99 % of the texts.",
            "Raise loss.terms.fast.weight, or fit the codes after training: spectra codes fit.",
        )
    if "anchor" in terms and last.get("anchors_entropy", MISSING) < IDLE_ANCHORS:
        yield Alarm(
            "idle anchors",
            f"only {last.get('anchors_used', MISSING):.0%} of the anchors are the nearest of any text.",
            "Raise loss.terms.anchor.weight, or train longer before you judge them.",
        )


def _of_vectors(measures: Sequence[Mapping[str, float]]) -> Alarm | None:
    """What is wrong with the embeddings, the worst first."""
    last, first = measures[-1], measures[0]
    lower = "Lower train.lr, raise loss.temperature, or add negatives (train.batch)."
    if last.get("non_finite", 0) > 0:
        again = "Start again from an earlier checkpoint with a lower train.lr, or train.precision=fp32."
        return Alarm("not finite", f"{last['non_finite']:.0f} vectors hold NaN or infinity.", again)
    rank, share = last.get("rank", MISSING), last.get("rank_share", MISSING)
    if share < LEAST_RANK or rank < ONE_WAY:
        return Alarm("collapse", f"effective rank {rank:.1f}, {share:.0%} of what the sample allows.", lower)
    highest = max((one["rank"] for one in measures if "rank" in one), default=MISSING)
    if rank < LOST_RANK * highest:
        return Alarm("collapse", f"effective rank fell from {highest:.1f} to {rank:.1f}.", lower)
    if last.get("mean_cosine", MISSING) > CONE:
        return Alarm("cone", f"distinct texts have a mean cosine of {last['mean_cosine']:.2f}.", lower)
    twins = last.get("near_duplicates", MISSING)
    if twins > max(TWINS, 2 * first.get("near_duplicates", 0.0)):
        return Alarm("twins", f"{twins:.0%} of the sample's texts have another at cosine above 0.999.", lower)
    return None


def _of_training(rows: Sequence[Row]) -> Iterator[Alarm]:
    rows = [row for row in rows if "loss" in row]
    if len(rows) < 3 * WINDOW:
        return
    yield from _rising(rows)
    norms = [float(row["grad_norm"]) for row in rows if "grad_norm" in row]
    if len(norms) > WINDOW and norms[-1] > SPIKE * (usual := statistics.median(norms[:-1])) > 0:
        yield Alarm(
            "gradient spike",
            f"gradient norm {norms[-1]:.3g}, {norms[-1] / usual:.0f} times its median.",
            "One is harmless, since train.clip cuts it; if they go on, lower train.lr or train.clip, and look "
            "for broken rows in the data.",
        )
    speeds = [float(row["tokens_per_second"]) for row in rows if "tokens_per_second" in row]
    if len(speeds) > 2 * WINDOW:
        now, usual = statistics.median(speeds[-WINDOW:]), statistics.median(speeds[:-WINDOW])
        if now < SLOW * usual:
            yield Alarm(
                "slow",
                f"{now:,.0f} tokens/s, {now / usual:.0%} of what it was.",
                "Look for other programs on the machine, for memory that runs out (swap), and for heat.",
            )


def _rising(rows: Sequence[Row]) -> Iterator[Alarm]:
    """The loss of the latest window above that of the best one, by more than both scatter and a tenth.

    A falling temperature or a term that joins raises the loss by right, so only rows with the same of both count.
    """
    last = rows[-1]
    alike = [row for row in rows if set(row) == set(last) and _close(row.get("temperature"), last.get("temperature"))]
    values = [float(row["loss"]) for row in alike if math.isfinite(float(row["loss"]))]
    if len(values) < 3 * WINDOW:
        return
    now = statistics.mean(values[-WINDOW:])
    windows = [values[at : at + WINDOW] for at in range(0, len(values) - 2 * WINDOW + 1, WINDOW)]
    best = min(windows, key=statistics.mean)
    usual = statistics.mean(best)
    if now - usual > max(3 * statistics.stdev(best), 0.1 * abs(usual)):
        yield Alarm(
            "rising loss",
            f"the loss rose from {usual:.4g} to {now:.4g}, means of {WINDOW} logged steps.",
            "Lower train.lr, or go on from a checkpoint before the rise: spectra train --resume "
            "RUN/checkpoints/step-N train.lr=…",
        )


def _close(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=0.02))
