from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import Bags, BagSource, SlideModel, Target, build_aggregator, fit_bags
from coverslip.mil.methods.weakstil import WeakStil
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.contract import Task
from coverslip.mil.tasks.regression import Regression
from coverslip.nn.segments import mean
from coverslip.store import Features
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags


def build(outputs: int = 3, **options: float) -> WeakStil:
    torch.manual_seed(0)
    method = build_aggregator("weakstil", DIM, outputs, options).double().eval()
    assert isinstance(method, WeakStil)
    return method


def density(num_slides: int = 60, *, unit: float = 1.0) -> tuple[BagSource, list[np.ndarray]]:
    """Slides whose value is the mean over tiles of a number between 0 and `unit` that the features show."""
    generator = np.random.default_rng(0)
    features, truth = [], []
    for i in range(num_slides):
        share = generator.beta(1, 4, generator.integers(20, 60))
        x = generator.standard_normal((len(share), 8))
        x[:, 0] = 6 * share
        features.append(Features(f"s{i:03d}", x.astype(np.float32)))
        truth.append(share * unit)
    y = torch.tensor([part.mean() for part in truth], dtype=torch.float32)
    return BagSource(features, target=Target(y)), truth


def fitted(source: BagSource, task: Task, **options: float) -> SlideModel:
    settings = FitSettings(device="cpu", epochs=30, lr=3e-3, batch=8)
    return fit_bags(source, None, task, AggregatorSettings(name="weakstil", options=options), settings)


def test_the_contract_is_kept() -> None:
    check_aggregator("weakstil", hidden=16, head=8)


def test_the_logits_are_the_mean_of_the_rows_scores() -> None:
    bags = example_bags()
    output = build()(bags)
    assert torch.allclose(mean(output.evidence, bags.segments), output.logits, rtol=0, atol=1e-12)


def test_the_rows_scores_are_those_of_a_slow_loop() -> None:
    method = build()
    project, hidden, last = method.projection[0], method.score[0][0], method.score[1]  # type: ignore[index]
    x = example_bags().x
    for row, score in zip(x, method(example_bags()).evidence):
        h = np.maximum(project.weight.detach().numpy() @ row.numpy() + project.bias.detach().numpy(), 0)
        g = np.maximum(hidden.weight.detach().numpy() @ h + hidden.bias.detach().numpy(), 0)
        expected = last.weight.detach().numpy() @ g + last.bias.detach().numpy()
        assert np.allclose(score.detach().numpy(), expected, rtol=0, atol=1e-12)


def test_the_map_averages_to_the_slides_value_and_keeps_the_bounds() -> None:
    source, truth = density()
    task = Regression()
    model = fitted(source, task)
    values = model.predict(source)["value"].to_numpy()
    found = []
    for place, (value, shares) in enumerate(zip(values, truth)):
        bag = source.bags([place])
        rows = model.task.predictions(model.output(bag).evidence)[:, 0].numpy()
        assert abs(rows.astype(float).mean() - value) < 1e-6
        assert rows.min() >= -1e-6
        assert rows.max() <= 1 + 1e-6
        found.append(np.corrcoef(rows, shares)[0, 1])
    # Only slides' means were given; tiles that were never labelled follow their own densities.
    assert np.median(found) > 0.9
    assert np.corrcoef(values, [shares.mean() for shares in truth])[0, 1] > 0.9


def test_bounds_are_in_the_units_of_the_target() -> None:
    source, _ = density(unit=100.0)
    model = fitted(source, Regression(), low=0.0, high=100.0)
    bags = source.bags(range(len(source)))
    extreme = Bags(bags.x * 1e3, bags.offsets, None, bags.slides)
    rows = model.task.predictions(model.output(extreme).evidence)
    assert rows.min() > -1e-3
    assert rows.max() < 100 + 1e-3
    assert rows.max() > 90


def test_an_untrained_network_gives_about_the_training_mean() -> None:
    source, _ = density()
    task = Regression()
    model = fit_bags(source, None, task, "weakstil", FitSettings(device="cpu", epochs=1, lr=1e-12))
    values = model.predict(source)["value"]
    assert source.target is not None
    assert values.mean() == pytest.approx(float(source.target.y.mean()), abs=0.05)


def test_values_that_are_no_shares_have_no_bounds() -> None:
    source, _ = density(unit=100.0)
    model = fit_bags(source, None, Regression(), "weakstil", FitSettings(device="cpu", epochs=1))
    assert float(model.aggregator.span) == 0  # type: ignore[arg-type]


def test_bounds_are_saved_with_the_model(tmp_path: Path) -> None:
    source, _ = density(20)
    model = fit_bags(source, None, Regression(), "weakstil", FitSettings(device="cpu", epochs=1), folder=tmp_path)
    again = SlideModel.load(tmp_path)
    assert float(again.aggregator.span) > 0  # type: ignore[arg-type]
    assert np.array_equal(again.predict(source)["value"], model.predict(source)["value"])


def test_bounds_that_do_not_hold_the_training_values_are_refused() -> None:
    source, _ = density(unit=100.0)
    with pytest.raises(SettingsError, match=r"low = 0 and high = 1: training values go from .* cannot reach beyond"):
        fitted(source, Regression(), low=0.0, high=1.0)


def test_bounds_for_classes_are_refused() -> None:
    source, _ = density(20)
    labelled = source.with_target(Target(torch.arange(20) % 2))
    with pytest.raises(SettingsError, match="'classification' has no values"):
        fitted(labelled, Classification(("a", "b")), low=0.0, high=1.0)


@pytest.mark.parametrize("options", [{"low": 0.0}, {"high": 1.0}, {"low": 2.0, "high": 1.0}])
def test_half_a_pair_of_bounds_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="low"):
        build_aggregator("weakstil", 8, 1, options)


def test_without_bounds_two_outputs_are_means_too() -> None:
    method = build(2)
    assert method.objective(method, Classification(("a", "b")), None) is None  # type: ignore[arg-type]
    assert float(method.span) == 0
