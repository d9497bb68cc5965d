"""Losses of times against distributions spelt out, published fits and slow loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.base.study import FitSettings
from coverslip.mil import BagSource, Target, fit_bags, make_task
from coverslip.mil.tasks._bins import base_logits, bin_edges, incidence, log_likelihood
from coverslip.mil.tasks.survival_parametric import weibull

EDGES = torch.tensor([0.0, 1.0, 3.0, 7.0])
GRID = (1.0, 3.0, 7.0)
lifelines = pytest.importorskip("lifelines", reason="lifelines is the oracle")


def test_the_chances_of_all_bins_and_causes_and_of_passing_them_add_up_to_one() -> None:
    logits = torch.randn(1, 2, 3, dtype=torch.float64)
    ends = EDGES[1:]
    event = torch.tensor([1, 2]).repeat_interleave(3)
    happened = log_likelihood(logits.expand(6, -1, -1), ends.repeat(2), event, EDGES).exp().sum()
    passed = log_likelihood(logits, ends[-1:], torch.tensor([0]), EDGES).exp().sum()
    assert float(happened + passed) == pytest.approx(1, abs=1e-6)
    assert float(incidence(logits, ends, EDGES)[0, :, -1].sum()) == pytest.approx(float(happened), abs=1e-6)


def test_a_censored_bag_counts_for_the_part_of_the_bin_that_was_seen() -> None:
    logits = torch.zeros(1, 1, 3)  # each bin is passed with a chance of a half
    half_way = log_likelihood(logits, torch.tensor([2.0]), torch.tensor([0]), EDGES)
    assert float(half_way.exp()) == pytest.approx(0.5**1.5, abs=1e-6)
    assert 1 - float(incidence(logits, torch.tensor([2.0]), EDGES)) == pytest.approx(0.5**1.5, abs=1e-6)


def test_bins_end_at_quantiles_of_the_events_and_never_have_no_width() -> None:
    time, event = torch.arange(1.0, 21.0), torch.ones(20, dtype=torch.int64)
    assert bin_edges(time, event, 4).tolist() == [0, 5.75, 10.5, 15.25, 20]
    for odd in (torch.zeros(20, dtype=torch.int64), (time == 20).long()):
        assert (bin_edges(time, odd, 4).diff() > 0).all()
    assert (bin_edges(torch.ones(5), torch.ones(5, dtype=torch.int64), 4).diff() > 0).all()


def test_without_a_network_the_curve_is_the_life_table() -> None:
    generator = torch.Generator().manual_seed(0)
    time = torch.rand(4000, generator=generator) * 10
    event = torch.ones(4000, dtype=torch.int64)
    edges = bin_edges(time, event, 4)
    gone = incidence(base_logits(time, event, edges, 1)[None], edges[1:-1], edges)[0, 0]
    assert gone.tolist() == pytest.approx([0.25, 0.5, 0.75], abs=2e-3)


def test_the_partial_likelihood_is_that_of_a_slow_loop_and_its_top_that_of_lifelines() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=120)
    time = rng.exponential(np.exp(-x))
    event = rng.integers(0, 2, 120)
    # At event times: between them lifelines draws slopes, where the estimate is a step.
    grid = np.sort(time[event == 1])[[5, 20, 40]]
    task = make_task("survival_cox", grid=grid + 1e-6, weights="balanced", options={})
    target = Target(torch.tensor(time), event=torch.tensor(event))
    r = torch.tensor(0.7 * x)[:, None]
    loss, weight = task.loss(r, target)
    slow = [np.log(np.exp(0.7 * x[time >= time[i]]).sum()) - 0.7 * x[i] for i in range(120) if event[i]]
    assert float((loss * weight).sum()) == pytest.approx(sum(slow))
    fitted = lifelines.CoxPHFitter().fit(pd.DataFrame({"x": x, "t": time, "e": event}), "t", "e")
    beta = torch.tensor(float(fitted.params_["x"]), dtype=torch.float64, requires_grad=True)
    losses, weights = task.loss(beta * torch.tensor(x)[:, None], target)
    (slope,) = torch.autograd.grad((losses * weights).sum(), beta)
    assert abs(float(slope)) < 1e-2  # theirs stops a little before the top
    task.finish((beta.detach() * torch.tensor(x))[:, None], target, [f"p{i}" for i in range(120)])
    expected = fitted.predict_survival_function(pd.DataFrame({"x": x[:5]}), times=list(grid)).T.to_numpy()
    assert task.predictions((beta.detach() * torch.tensor(x[:5]))[:, None])[:, 1:].numpy() == pytest.approx(
        expected, abs=1e-5
    )


def test_the_marginal_weibull_is_that_of_lifelines() -> None:
    rng = np.random.default_rng(1)
    time, event = 100 * rng.weibull(1.7, 300), rng.integers(0, 2, 300)
    log_scale, shape = weibull(torch.tensor(time), torch.tensor(event) > 0).tolist()
    fitted = lifelines.WeibullFitter().fit(time, event)
    assert shape == pytest.approx(fitted.rho_, rel=1e-4) and np.exp(log_scale) == pytest.approx(
        fitted.lambda_, rel=1e-4
    )


def test_one_component_is_a_weibull_in_any_unit_of_time() -> None:
    time, event = torch.tensor([100.0, 300.0, 50.0, 700.0]), torch.tensor([1, 0, 1, 1])
    losses = []
    for unit in (1.0, 365.0):
        task = make_task("survival_parametric", grid=GRID, weights="none", options={"components": 1})
        target = Target(time / unit, event=event)
        task.fit_target(target, list("abcd"))
        losses.append(task.loss(torch.zeros(4, 3), target)[0])
    assert losses[0].tolist() == pytest.approx(losses[1].tolist(), abs=1e-5)


def test_cox_raises_the_bags_of_a_step_and_refuses_fewer(source: BagSource) -> None:
    times = Target(torch.arange(1.0, 25.0), event=torch.ones(24, dtype=torch.int64))
    source._slide_target = times
    source._arrange()
    task = make_task("survival_cox", grid=GRID, weights="none", options={})
    with pytest.raises(SettingsError, match=r"fit.batch = 4.*needs 16 or more.*fit.max_rows"):
        fit_bags(source, None, task, "mean", FitSettings(epochs=1, device="cpu", batch=4))
    model = fit_bags(source, None, task, "mean", FitSettings(epochs=1, device="cpu"))
    assert model.card.training["settings"]["batch"] == 16
    assert model.task.hazard[-1] > 0  # the baseline hazard was learnt after training
