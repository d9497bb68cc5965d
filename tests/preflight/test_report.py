"""Reports are values, and their JSON is that of the interface."""

from __future__ import annotations

import json

from coverslip.base.errors import Finding
from coverslip.base.geometry import Size
from coverslip.preflight import CheckReport, SlideReport, Twins

REPORT = SlideReport(
    slide="a",
    path="a.svs",
    reasons=(Finding("mpp_missing", "No scale.", "Give one."),),
    vendor="aperio",
    reader="openslide",
    size=Size(2220, 2967),
    mpp=0.499,
    levels=(1.0, 4.0),
    digest="0123",
    thumbnail="xyz",
)


def test_the_json_of_a_slide_has_every_key_of_the_interface() -> None:
    entry = REPORT.to_json()
    interface = {"slide", "path", "verdict", "reasons", "vendor", "reader", "size", "mpp", "levels", "digest"}
    assert interface <= set(entry)
    assert entry["verdict"] == "warn"
    assert entry["size"] == [2220, 2967]
    assert entry["reasons"] == [{"code": "mpp_missing", "message": "No scale.", "fix": "Give one."}]


def test_a_report_survives_the_trip_through_json() -> None:
    for report in (REPORT, SlideReport("b", "b.svs")):
        assert SlideReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_the_gravest_reason_is_the_verdict() -> None:
    assert SlideReport("a", "a").verdict == "ok"
    assert REPORT.with_reason(Finding("no_tissue", "Empty.")).verdict == "fail"


def test_the_json_of_a_cohort_has_its_format_and_its_pairs() -> None:
    report = CheckReport((REPORT,), (Twins("a", "b", "near"),))
    assert report.to_json()["format"] == "coverslip.check/1"
    assert report.to_json()["duplicates"] == [{"slides": ["a", "b"], "kind": "near"}]
    assert report.failed == ()
