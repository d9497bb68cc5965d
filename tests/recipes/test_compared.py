"""What the user named, or mistyped."""

from __future__ import annotations

from pathlib import Path

import pytest

from coverslip.base.errors import SettingsError
from coverslip.base.study import Study, load_study
from coverslip.recipes.compared import compared_methods
from feature_study import write_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return load_study(write_study(tmp_path, 4))


@pytest.mark.parametrize(
    ("asked", "reference", "said"),
    [
        (None, None, "is not said"),
        ("abmil", None, "alone is nothing to compare"),
        ("abmil,mean,abmil", None, "named twice"),
        ("abmli,mean", None, "Did you mean 'abmil'?"),
        ("mean,,abmil", None, "no method ''"),
        ("mean,abmil:heads", None, "key=value"),
        ("mean,abmil:haeds=2", None, "Did you mean 'heads'?"),
        ("mean,abmil:heads=two", None, "takes int"),
        ("mean,abmil:fit.lr=-1", None, "lr"),
        ("mean,abmil:fit.speed=1", None, "speed"),
        ("mean,abmil", "max", "not among"),
        ("mean,abmil", "abmli", "Did you mean 'abmil'?"),
    ],
)
def test_a_mistake_is_told_before_anything_is_done(
    asked: str | None, reference: str | None, said: str, study: Study, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as error:
        compared_methods(study, tmp_path / "c", asked, reference)
    assert said in str(error.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("asked", "reference"),
    [
        ("mean,abmil", "abmil"),
        ("max,mean", "max"),
        ("max,abmil:heads=2", "abmil:heads=2"),
        ("abmil:heads=2,abmil", "abmil"),
    ],
)
def test_the_reference_is_abmil_or_the_first(asked: str, reference: str, study: Study, tmp_path: Path) -> None:
    assert compared_methods(study, tmp_path, asked)[1] == reference


def test_options_behind_colons_are_read_as_toml(study: Study, tmp_path: Path) -> None:
    methods, _ = compared_methods(study, tmp_path, "mean, abmil:heads=2:gated=false:fit.lr=1e-4")
    made = methods[1].study
    assert made.aggregator.options == {"heads": 2, "gated": False} and made.fit.lr == 1e-4
    assert Path(made.output).parent == tmp_path / "runs"
    assert made.fit.model_copy(update={"lr": None}) == study.fit
    assert made.evaluation.inner_folds == 0 and made.evaluation.control == 0


def test_a_grid_of_methods_is_refused_where_it_would_hold_for_all(study: Study, tmp_path: Path) -> None:
    tuned = study.model_copy(
        update={"tune": study.tune.model_copy(update={"grid": {"aggregator.name": ["mean", "abmil"]}})}
    )
    with pytest.raises(SettingsError, match=r"tune\.grid"):
        compared_methods(tuned, tmp_path, "mean,abmil")
