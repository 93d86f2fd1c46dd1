"""Rules over the logged rows of a run: which figures call for a warning, and what the warning says.

The thresholds are rules of thumb. The healthy runs of the tests raise no alarm, and an alarm never stops a run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence

from spectra_nsa.report.run_log import SET_LOSS
from spectra_nsa.training.monitor.alarm import Alarm, LogRow
from spectra_nsa.training.monitor.expert_alarms import expert_alarms

WINDOW = 10  # logged rows that are compared with earlier ones
LEAST_RANK = 0.1  # share of the rank that the sample allows
ONE_WAY = 1.5  # effective rank: all vectors on one line, however small the sample
LOST_RANK = 0.5  # share of the highest rank so far
CONE = 0.9  # mean cosine of distinct texts
TWINS = 0.1  # share of texts with another at cosine 0.999
DEAD_BITS = 0.1
BIT_STEPS = 100  # the codes start from random directions and learn slowly
IDLE_ANCHORS = 0.3  # entropy of their use
SPIKE = 10.0  # times the median gradient norm
SLOW = 0.5  # of the median speed
MISSING = float("nan")  # compares false with everything


def alarms(rows: Sequence[LogRow], health: Sequence[LogRow], terms: Collection[str]) -> list[Alarm]:
    """Returns the alarms that the latest rows raise.

    Args:
        rows: the latest training rows of `metrics.jsonl`, in order.
        health: all rows of health figures, in order.
        terms: the loss terms that take part in training; untrained heads raise no alarm.
    """
    raised = [*_training_alarms(rows), *expert_alarms(rows)]
    if health:
        raised += _health_alarms([_figures(row) for row in health], terms, int(health[-1].get("step", 0)))
    return raised


def _figures(row: LogRow) -> dict[str, float]:
    return {key.removeprefix("health_"): float(value) for key, value in row.items() if key.startswith("health_")}


def _health_alarms(measures: Sequence[Mapping[str, float]], terms: Collection[str], step: int) -> Iterator[Alarm]:
    """Yields one alarm for the vectors, or those of the heads if the vectors are healthy, since heads read them."""
    vectors = _vector_alarm(measures)
    if vectors is not None:
        yield vectors
        return
    last = measures[-1]
    if "fast" in terms and step >= BIT_STEPS and last.get("bits_dead", MISSING) > DEAD_BITS:
        yield Alarm(
            "dead bits",
            f"{last['bits_dead']:.0%} of the bits of the binary codes are the same for 99 % of the texts.",
            "Raise loss.terms.fast.weight, or fit the binary codes after training: spectra codes fit.",
        )
    if "anchor" in terms and last.get("anchors_entropy", MISSING) < IDLE_ANCHORS:
        yield Alarm(
            "idle anchors",
            f"only {last.get('anchors_used', MISSING):.0%} of the spectral anchors are the nearest of any text.",
            "Raise loss.terms.anchor.weight, or train longer before you judge them.",
        )


def _vector_alarm(measures: Sequence[Mapping[str, float]]) -> Alarm | None:
    """Returns the worst alarm of the embeddings; ``None`` if they are healthy."""
    last, first = measures[-1], measures[0]
    lower = "Lower train.lr, raise loss.temperature, or add negatives (train.batch)."
    if last.get("non_finite", 0) > 0:
        remedy = "Resume from an earlier checkpoint with a lower train.lr, or with train.precision=fp32."
        return Alarm("not finite", f"{last['non_finite']:.0f} vectors hold NaN or infinity.", remedy)
    rank, share = last.get("rank", MISSING), last.get("rank_share", MISSING)
    if share < LEAST_RANK or rank < ONE_WAY:
        return Alarm("collapse", f"effective rank {rank:.1f}, {share:.0%} of what the sample allows.", lower)
    highest = max((measure["rank"] for measure in measures if "rank" in measure), default=MISSING)
    if rank < LOST_RANK * highest:
        return Alarm("collapse", f"effective rank fell from {highest:.1f} to {rank:.1f}.", lower)
    if last.get("mean_cosine", MISSING) > CONE:
        return Alarm("cone", f"distinct texts have a mean cosine of {last['mean_cosine']:.2f}.", lower)
    twins = last.get("near_duplicates", MISSING)
    if twins > max(TWINS, 2 * first.get("near_duplicates", 0.0)):
        return Alarm("twins", f"{twins:.0%} of the sample's texts have another at cosine above 0.999.", lower)
    return None


def _training_alarms(rows: Sequence[LogRow]) -> Iterator[Alarm]:
    rows = [row for row in rows if "loss" in row]
    if len(rows) < 3 * WINDOW:
        return
    yield from _rising_loss(rows)
    norms = [float(row["grad_norm"]) for row in rows if "grad_norm" in row]
    if len(norms) > WINDOW and norms[-1] > SPIKE * (usual := statistics.median(norms[:-1])) > 0:
        yield Alarm(
            "gradient spike",
            f"gradient norm {norms[-1]:.3g}, {norms[-1] / usual:.0f} times its median.",
            "A single spike is harmless: train.max_grad_norm clips it. If spikes continue, lower train.lr or "
            "train.max_grad_norm, and look for broken rows in the data.",
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


def _keys(row: LogRow) -> set[str]:
    """Returns the keys of a row, apart from those of datasets: a line has those that its batches came from."""
    return {key for key in row if not key.startswith(SET_LOSS)}


def _rising_loss(rows: Sequence[LogRow]) -> Iterator[Alarm]:
    """Yields an alarm if the latest window's loss exceeds the best window's by more than both its scatter and a tenth.

    A falling temperature or a term that starts raises the loss legitimately, so only rows with the same temperature
    and terms as the last one count.
    """
    last = rows[-1]
    alike = [
        row for row in rows if _keys(row) == _keys(last) and _close(row.get("temperature"), last.get("temperature"))
    ]
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
            "Lower train.lr, or resume from a checkpoint before the rise: spectra train --resume "
            "RUN/checkpoints/step-N train.lr=…",
        )


def _close(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=0.02))
