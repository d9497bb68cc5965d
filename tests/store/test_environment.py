"""environment.json says what could change a number, and nobody's name."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from coverslip.store import describe_environment

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_versions_hardware_seeds_and_digests_are_there() -> None:
    found = describe_environment(now=NOW, seeds={"fit": 1}, digests={"cohort.csv": "ab"}, devices=["NVIDIA X"])
    assert found["packages"]["numpy"].count(".") == 2
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["devices"] == ["NVIDIA X"]
    assert (found["seeds"], found["digests"]) == ({"fit": 1}, {"cohort.csv": "ab"})
    assert set(found["pseudonymise"]) <= set(found)
    json.dumps(found, allow_nan=False)


def test_the_clock_is_the_callers_and_is_written_in_utc() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=5)))
    assert describe_environment(now=there)["created"] == "2030-01-02T03:04:05+00:00"


def test_no_user_name_and_no_path_is_kept(monkeypatch) -> None:
    monkeypatch.setenv("LOGNAME", "maximiliane")
    assert getpass.getuser() == "maximiliane"
    assert "maximiliane" not in json.dumps(describe_environment(now=NOW))
    with pytest.raises(AssertionError):
        describe_environment(now=NOW, digests={"/home/maximiliane/cohort.csv": "ab"})
