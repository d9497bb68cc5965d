"""What a reader is told first of an audit."""

from __future__ import annotations

from typing import Any

from coverslip.recipes.audit_warnings import warnings_of


def _audit(**parts: Any) -> dict[str, Any]:
    empty = {
        "level": "patient",
        "leaks": {"findings": []},
        "pretraining": {"warnings": []},
        "sites": {"reason": "no sites"},
        "subgroups": {"attributes": [], "skipped": []},
        "slices": {"slices": [], "looked_at": 0},
    }
    return empty | parts


def test_groups_of_errors_are_told_in_one_sentence_the_worst_first() -> None:
    slices = [
        {"slice": f"look-alikes {i}", "units": i, "excess": 0.5 - i / 100, "p": 0.0005 * i, "finding": i < 6}
        for i in range(1, 8)
    ]
    (told,) = warnings_of(_audit(slices={"slices": slices, "looked_at": 20}))
    assert told["gravity"] == "warn"
    assert "5 groups of 20" in told["text"] and "and 2 more" in told["text"]
    assert "look-alikes 1 (1 patient, +0.49, p < 0.001); look-alikes 2 (2 patients, +0.48, p 0.001)" in told["text"]
    assert "look-alikes 7" not in told["text"] and "p 0.000" not in told["text"]
    assert warnings_of(_audit(slices={"slices": slices[6:], "looked_at": 20})) == []


def test_a_site_that_tells_the_target_is_told_in_the_words_of_its_kind() -> None:
    red = {"value": 0.4, "metric": "r2", "red": True}
    tied = {"cramers_v": None, "explained": 0.38, "p": 0.00005, "red": True}
    (number,) = warnings_of(_audit(sites={"label_from_site": red, "confounding": tied}))
    assert number["gravity"] == "fail" and number["text"].startswith("Site and number hang together: 38% of the")
    assert "p < 0.0001" in number["text"] and "r2 0.40" in number["text"]
    labels = {"hole": {"label_from_site": {"value": 0.8, "metric": "auroc", "red": True}, "confounding": {}}, "rim": {}}
    (label,) = warnings_of(_audit(sites={"labels": labels}))
    assert "Site and label “hole” hang together: the site alone tells the label with AUROC 0.80." in label["text"]
