from __future__ import annotations

from typing import Any

import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.base.study import FitSettings
from coverslip.mil import FeatureOrigin, LabelledBags, LearningSet, SlideModel, Target, build_aggregator
from coverslip.mil.methods.packmil import PackMil
from coverslip.mil.model import ModelCard
from coverslip.mil.supervised import Supervised
from coverslip.nn.segments import Segments
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags
from coverslip.testing.tasks import example_target
from coverslip.train import Objective

LENGTHS = (1, 2, 9, 40)
BATCH = LabelledBags(example_bags(LENGTHS), Target(torch.tensor([0, 1, 2, 0])))


def model_of(name: str = "packmil", **options: Any) -> SlideModel:
    options = {"hidden": 16, **options}
    card = ModelCard(name, options, FeatureOrigin(DIM, "an example"), "classification", {"classes": ["a", "b", "c"]})
    torch.manual_seed(0)
    return SlideModel(card).double()


def objective_of(model: SlideModel) -> Objective:
    learns = LearningSet(4, sum(LENGTHS), BATCH.target)
    return model.aggregator.objective(model, model.task, learns) or Supervised(model, model.task)


def method_of(**options: Any) -> PackMil:
    method = model_of(**options).aggregator
    assert isinstance(method, PackMil)
    return method


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_rows": 0, "labels": "shares"},
        {"min_rows": 3, "downsample": 2},
        {"min_rows": 0, "downsample": 3, "preset": "official"},
        {"min_rows": 0, "host": "max"},
    ],
    ids=str,
)
def test_the_contract_is_kept(options: dict[str, Any]) -> None:
    check_aggregator("packmil", hidden=16, **options)


def test_evaluation_is_the_hosts() -> None:
    model, host = model_of().eval(), model_of("abmil").eval()
    host.load_state_dict({name.replace("host.", ""): value for name, value in model.state_dict().items()})
    for what in ("logits", "embedding", "attention", "evidence"):
        assert torch.equal(getattr(model(BATCH.bags), what), getattr(host(BATCH.bags), what))


def test_with_all_rows_and_no_packs_training_is_the_hosts() -> None:
    ours, theirs = model_of(keep=1.0, alpha=0.0, dropout=0.0), model_of("abmil", dropout=0.0)
    rows = []
    for model in (ours, theirs):
        objective = objective_of(model).train()
        optimiser = objective.optimiser(FitSettings(lr=1e-2, batch=4))
        for _ in range(5):
            output = objective(BATCH, 0.5)
            optimiser.zero_grad()
            output.loss.backward()
            optimiser.step()
            rows.append(output.loss.detach())
    assert torch.equal(torch.stack(rows[:5]), torch.stack(rows[5:]))
    for a, b in zip(ours.parameters(), theirs.parameters()):
        assert torch.equal(a, b)


def test_one_slide_a_pack_gives_the_main_branch_on_that_slide(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(min_rows=100, pack_rows=1, dropout=0.0)  # all slides are short: whole in both parts
    method = model.aggregator
    assert isinstance(method, PackMil)
    seen = []
    host = method.host.forward
    monkeypatch.setattr(method.host, "forward", lambda *given: seen.append(host(*given)) or seen[-1])
    objective_of(model).train()(BATCH, 0.5)
    main, residual = seen
    order = torch.tensor([3, 2, 1, 0])  # the longest first
    assert torch.allclose(residual.logits, main.logits[order], atol=1e-12)


def test_the_loss_is_the_hosts_on_main_parts_and_alpha_times_that_of_packs() -> None:
    outputs = {}
    for alpha in (0.0, 0.2, 0.4):
        objective = objective_of(model_of(min_rows=0, alpha=alpha, dropout=0.0)).train()
        torch.manual_seed(5)
        outputs[alpha] = objective(BATCH, 0.5)
    assert "hyperslides" not in outputs[0.0].parts
    assert torch.equal(outputs[0.2].parts["task"], outputs[0.0].loss)
    assert torch.allclose(2 * outputs[0.2].parts["hyperslides"], outputs[0.4].parts["hyperslides"])
    assert torch.allclose(outputs[0.2].loss, outputs[0.2].parts["task"] + outputs[0.2].parts["hyperslides"])


def test_a_host_with_terms_of_its_own_has_them_on_the_main_parts() -> None:
    model = model_of(host="acmil", min_rows=0)
    parts = objective_of(model).train()(BATCH, 0.5).parts
    assert {"task", "branches", "hyperslides"} <= set(parts)


def test_a_host_with_a_step_of_its_own_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"host = 'scmil' trains in steps of its own, on whole slides"):
        objective_of(model_of(host="scmil"))


@pytest.mark.parametrize(
    "kind",
    [
        "classification",
        "multilabel",
        "ordinal",
        "regression",
        "survival",
        "survival_cox",
        "survival_parametric",
        "competing_risks",
    ],
)
def test_every_kind_of_task_learns(kind: str) -> None:
    target = example_target(kind)
    n = len(target)
    arguments: dict[str, Any] = {"classes": ["a", "b", "c"]}
    if kind in {"survival", "survival_cox", "survival_parametric", "competing_risks"}:
        arguments = {"grid": [1.0, 2.0], **({"classes": ["a", "b", "c"]} if kind == "competing_risks" else {})}
    elif kind == "regression":
        arguments = {}
    elif kind == "multilabel":
        arguments = {"classes": [f"l{i}" for i in range(target.y.shape[1])]}
    card = ModelCard("packmil", {"hidden": 16, "min_rows": 0}, FeatureOrigin(DIM, "an example"), kind, arguments)
    torch.manual_seed(0)
    model = SlideModel(card).double()
    model.task.fit_target(target, [f"p{i}" for i in range(n)])
    objective = model.aggregator.objective(model, model.task, LearningSet(n, 5 * n, target))
    assert objective is not None
    output = objective.train()(LabelledBags(example_bags((5,) * n), target), 0.5)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert float(output.parts["hyperslides"].detach()) != 0


def test_packs_follow_the_preset() -> None:
    fixed, official = method_of(pack_rows=10), method_of(pack_rows=10, preset="official")
    lengths = (6, 6, 4, 4)
    assert fixed.packs(lengths, 12) == [[0, 2], [1, 3]]
    assert official.packs(lengths, 12) == [[0], [1, 2], [3]]
    # Half of 22 rows is over 10: packs of 20.
    assert official.packs(lengths, 22) == [[0, 1, 2, 3]]
    # No pack size given: twice the longest part.
    assert method_of().packs((6, 6, 6, 1), 12) == [[0, 1], [2, 3]]


def test_the_official_preset_cuts_parts_to_a_pack_and_the_fixed_one_keeps_every_row() -> None:
    bags, lengths = example_bags((40, 3)), (40, 3)
    for preset, expected in (("fixed", ((20, 1), (20, 2))), ("official", ((10, 1), (10, 2)))):
        halves = method_of(pack_rows=5, min_rows=0, preset=preset).split(bags, lengths)
        assert (halves.main_lengths, halves.residual_lengths) == expected


def test_downsampling_makes_training_rows_fewer_and_leaves_evaluation_whole() -> None:
    method = method_of(downsample=4, min_rows=2)
    part, lengths = method.part(BATCH.bags, LENGTHS)
    assert lengths == (1, 2, 3, 10) == tuple(Segments(part.offsets, len(part.x)).lengths.tolist())
    assert len(method.eval()(BATCH.bags).attention) == sum(LENGTHS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "packmil"}, "its own host"),
        ({"keep": 0.0}, "keep is over 0"),
        ({"keep": 1.0}, "leaves no rows for packs; set alpha = 0"),
        ({"labels": "max"}, "'counts' or 'shares'"),
        ({"host": "abmil", "headz": 2}, "Did you mean 'heads'"),
        ({"host": "abml"}, "Did you mean 'abmil'"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_aggregator("packmil", 8, 2, options)
