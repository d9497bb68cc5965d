"""What can never be trained is refused before any slide is read, and what can be is not."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest

from coverslip.base.errors import SettingsError
from coverslip.base.registry import AGGREGATORS, TASKS
from coverslip.base.study import Study
from coverslip.mil.plan import check_plan

WRAPPERS = ("aem", "packmil", "scmil")


def study(aggregator: dict[str, Any], *, kind: str = "classification", **fit: Any) -> Study:
    table = {"name": "planned", "aggregator": aggregator, "task": {"kind": kind, "column": "y"}, "fit": fit}
    return Study.model_validate({**table, "cohort": {"table": "cohort.csv"}, "output": "runs"})


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_every_method_may_be_planned_at_its_defaults(name: str) -> None:
    check_plan(study({"name": name}))


@pytest.mark.parametrize("kind", TASKS.names())
def test_abmil_may_be_planned_for_every_task(kind: str) -> None:
    check_plan(study({"name": "abmil"}, kind=kind))


@pytest.mark.parametrize("host", AGGREGATORS.names())
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_host_is_accepted_or_the_refusal_names_those_that_are(name: str, host: str) -> None:
    if _accepted(name, host):
        return
    with pytest.raises(SettingsError) as refused:
        check_plan(study({"name": name, "options": {"host": host}}))
    said = str(refused.value)
    assert f"{host!r}" in said or f'"{host}"' in said
    listed = re.search(r"Hosts are ([\w, ]+), and any method of yours", said)
    assert listed is not None, said
    assert listed[1].split(", ") == [other for other in AGGREGATORS.names() if _accepted(name, other)]


@cache
def _accepted(name: str, host: str) -> bool:
    try:
        check_plan(study({"name": name, "options": {"host": host}}))
    except SettingsError:
        return False
    return True


@pytest.mark.parametrize(
    ("planned", "message"),
    [
        (study({"name": "mhim", "options": {"host": "clam_sb"}}), "host = 'clam_sb': mhim takes 'abmil' or"),
        (study({"name": "abmil", "options": {"hiden": 4}}), "Did you mean 'hidden'"),
        (study({"name": "acmil", "options": {"mask_drop": 1.2}}), "mask_drop lies between 0 and 1"),
        (study({"name": "ins"}, kind="regression"), 'Set task.kind = "classification"'),
        (study({"name": "clam_sb"}, kind="survival"), "without classes"),
        (study({"name": "scmil"}, kind="survival_cox"), "has no classes"),
        (study({"name": "weakstil", "options": {"low": 0.0, "high": 1.0}}), "has no values"),
        (study({"name": "abmil"}, kind="regression", sampling="balanced"), "has no classes"),
        (study({"name": "abmil"}, kind="survival", augment="remix"), "has no classes"),
        (study({"name": "abmil"}, kind="regression", class_weights="effective_number"), "Leave fit.class_weights out"),
        (study({"name": "max"}, augment="smote", augment_options={"space": "embeddings"}), "max"),
        (study({"name": "abmil"}, augment_options={"rate": 0.5}), "without an augment"),
    ],
)
def test_what_does_not_go_together_is_refused(planned: Study, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_plan(planned)


@pytest.mark.parametrize(
    "planned",
    [
        study({"name": "weakstil", "options": {"low": 0.0, "high": 100.0}}, kind="regression"),
        study({"name": "ins", "options": {"negative": 7}}),
        study({"name": "abmil", "options": {"pooling": "ggem", "groups": 256}}),
        study({"name": "clam_sb", "options": {"bag_weight": 1.0}}, kind="survival"),
        study({"name": "packmil", "options": {"host": "aem"}}),
    ],
)
def test_what_the_studys_own_rows_decide_is_left_to_them(planned: Study) -> None:
    check_plan(planned)
