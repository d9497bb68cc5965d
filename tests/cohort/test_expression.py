from __future__ import annotations

import pandas as pd
import pytest

from coverslip.base.errors import SettingsError
from coverslip.cohort.expression import keep_rows

FRAME = pd.DataFrame(
    {
        "stage": ["I", "II", "IV", None],
        "age": [40.0, 70.0, None, 18.0],
        "n": [0, 1, 2, 3],
        "OS.time": [1, 2, 3, 4],
        "seen": ["2019-05-01", "2020-12-31", "2021-01-01", None],
        "smoker": ["True", "False", "True", "False"],
        "slide": ["007", "7", "a", "b"],
        "nothing": [None, None, None, None],
    }
)


def _kept(text: str) -> list[int]:
    keep = keep_rows(text, FRAME)
    return [i for i, value in enumerate(keep.fillna(False)) if value]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("stage == 'I'", [0]),
        ("stage != 'IV'", [0, 1]),  # an unknown stage is not known to differ from IV
        ("not stage == 'IV'", [0, 1]),
        ("age >= 18 and age < 70", [0, 3]),
        ("18 < age <= 70", [0, 1]),
        ("stage in ('I', 'II') or n == 3", [0, 1, 3]),
        ("stage not in ('I', 'II')", [2]),
        ("n in [1, 2.0]", [1, 2]),
        ("n != -1", [0, 1, 2, 3]),
        ("age is None", [2]),
        ("stage is not None and not (n == 1)", [0, 2]),
        ("`OS.time` > 2", [2, 3]),
        ("`OS.time` > 2 and stage != '`x`'", [2]),
        ("seen >= '2020-12-31'", [1, 2]),
        ("smoker == True", [0, 2]),
        ("slide == '007'", [0]),
        ("n < `OS.time`", [0, 1, 2, 3]),
        ("nothing == 1", []),
        ("stage == 'I' or age > 60", [0, 1]),
    ],
)
def test_the_filter_keeps_what_it_says(text: str, rows: list[int]) -> None:
    assert _kept(text) == rows


def test_a_missing_value_is_unknown_not_false() -> None:
    assert keep_rows("age > 18", FRAME).isna().tolist() == [False, False, True, False]
    # Known to be kept whatever the missing value is.
    assert keep_rows("age > 18 or n == 2", FRAME).fillna(False).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stge == 'I'", "Did you mean 'stage'"),
        ("stage = 'I'", "cannot be read"),
        ("class == 1", "backticks"),
        ("stage == I", "names 'I'"),
        ("age == '40'", "holds number"),
        ("stage == 1", "holds text \\(such as 'I'\\)"),
        ("stage > 'I'", "has no order"),
        ("age", "'age' alone"),
        ("1 == 1", "neither is a column"),
        ("age > 18 and True", "no comparison"),
        ("stage in 'IV'", "without a list"),
        ("stage in ()", "without a list"),
        ("age + 1 > 18", "neither a column"),
        ("age is 40", "does not ask"),
        ("__import__('os').system('true') == 0", "neither a column"),
        ("(lambda: 0)() == 0", "neither a column"),
        ("age.__class__ == 1", "neither a column"),
        ("[x for x in age]", "no comparison"),
        ("", "cannot be read"),
        ("(" * 300 + "age > 1" + ")" * 300, "cannot be read"),
        ("age > 1 and " * 400 + "age > 1", "longer than"),
    ],
)
def test_anything_else_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        keep_rows(text, FRAME)


def test_many_nots_are_no_crash() -> None:
    assert _kept("not " * 400 + "n == 1") == [1]
