from __future__ import annotations

import pytest
import torch

from spectra_nsa.tokens.length_batches import Work, outputs_by_length
from spectra_nsa.training.monitor.throughput import Throughput, matmul_peak


def test_rates_by_hand() -> None:
    speed = Throughput(Work(), 2, lambda length: 1000 * length, "fp32")
    speed.peak = 1e6
    work = Work()
    work.add([4, 8])
    work.add([8, 8])
    found = speed.rates(work, seconds=2.0)
    assert found["pairs_per_second"] == 1.0 and found["tokens_per_second"] == 14.0
    assert found["padding_waste"] == pytest.approx(32 / 28 - 1, abs=1e-4)
    mean_length = (16 + 3 * 64) / 28  # attention's cost goes with the square
    assert found["matmul_share"] == pytest.approx(3 * 1000 * mean_length * 14 / 1e6, abs=1e-4)
    assert "tokens_per_second" not in speed.rates(Work(), 1.0)


def test_work_counts_what_the_groups_compute() -> None:
    mask = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0, 0], [1] * 9])
    features = [{"input_ids": mask * 5, "attention_mask": mask}]
    computed: list[int] = []

    def model(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        computed.append(batch["input_ids"].numel())
        return {"sentence_embedding": batch["input_ids"].float()[:, :1]}

    for groups, padded in ((1, 18), (2, 11)):
        work, computed[:] = Work(), []
        outputs_by_length(model, features, groups, work=work)
        assert work.take() == Work(texts=2, tokens=11, padded=padded, squares=85)
        assert sum(computed) == padded and work == Work()


def test_a_measured_peak_leaves_the_random_state() -> None:
    before = torch.random.get_rng_state()
    assert 1e8 < matmul_peak(torch.device("cpu"), "fp32") < 1e15
    assert torch.equal(before, torch.random.get_rng_state())
