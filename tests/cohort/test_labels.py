from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coverslip.cohort.labels import label_text, natural_key, natural_order


def test_whole_numbers_lose_their_point() -> None:
    assert [label_text(v) for v in (1.0, 1, "1", 0.5, -0.0, True, " x ")] == ["1", "1", "1", "0.5", "0", "True", "x"]


def test_numbers_sort_by_value_and_names_as_people_do() -> None:
    assert natural_order(["10", "2", "-1", "0"]) == ["-1", "0", "2", "10"]
    assert natural_order(["grade 10", "Grade 2", "grade 1"]) == ["grade 1", "Grade 2", "grade 10"]
    assert sorted(["splits_10.csv", "splits_2.csv", "a", "a1"], key=natural_key) == [
        "a",
        "a1",
        "splits_2.csv",
        "splits_10.csv",
    ]


@given(st.lists(st.text(max_size=6), unique=True))
def test_any_names_have_one_order(names: list[str]) -> None:
    assert natural_order(names) == natural_order(reversed(names))
