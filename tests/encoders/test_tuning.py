from __future__ import annotations

import pytest
import torch

from coverslip.encoders import encoder
from coverslip.encoders.tuning import CPU_BATCH, MOST_CPU_THREADS, ReadingThreads, choose_batch, cores, fastest_batch


def rate_up_to(best, *, fits=10_000):
    """A device whose rate grows with the batch up to `best`, and that has room for `fits` tiles."""
    asked = []

    def seconds(batch):
        asked.append(batch)
        return float("inf") if batch > fits else max(batch, best) / 1000

    return seconds, asked


@pytest.mark.parametrize(("best", "batch"), [(16, 16), (64, 64), (300, 512), (5000, 1024)])
def test_the_batch_is_doubled_while_that_pays(best, batch):
    seconds, asked = rate_up_to(best)
    assert fastest_batch(seconds).batch == batch
    assert asked == sorted(asked)


def test_a_batch_that_does_not_fit_is_not_taken():
    seconds, _ = rate_up_to(5000, fits=100)
    found = fastest_batch(seconds)
    assert found.batch == 64 and "16: 3, 32: 6" in found.why


def test_the_same_device_gives_the_same_batch_again():
    assert len({fastest_batch(rate_up_to(100)[0]).batch for _ in range(5)}) == 1


def test_a_cpu_always_has_the_same_batch_and_a_fixed_one_is_as_set():
    model, cpu = encoder("texture"), torch.device("cpu")
    assert choose_batch(model, device=cpu, precision="fp32", size_px=224).batch == CPU_BATCH
    assert choose_batch(model, device=cpu, precision="fp32", size_px=224, fixed=5).batch == 5


def test_threads_begin_as_many_as_cores_and_a_fixed_number_stays():
    assert ReadingThreads().count == min(cores(), MOST_CPU_THREADS)
    fixed = ReadingThreads(3)
    fixed.observe(rate=1, starved=1, storage=1)
    assert fixed.settled and fixed.count == 3


@pytest.mark.parametrize(("starved", "storage"), [(0.0, 1.0), (1.0, 0.1)])
def test_more_threads_are_not_tried_where_the_encoder_is_busy_or_the_cores_are(starved, storage):
    threads = ReadingThreads()
    before = threads.count
    threads.observe(rate=100, starved=starved, storage=storage)
    assert threads.settled and threads.count == before


def test_threads_that_wait_for_the_storage_are_doubled_as_long_as_that_reads_faster():
    threads = ReadingThreads()
    begin = threads.count
    threads.observe(rate=100, starved=1, storage=0.9)
    assert threads.count == 2 * begin
    threads.observe(rate=190, starved=1, storage=0.9)
    assert threads.count == 4 * begin
    threads.observe(rate=200, starved=1, storage=0.9)
    assert threads.count == 2 * begin and threads.settled
