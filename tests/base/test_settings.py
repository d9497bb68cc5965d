"""Settings: typed, strict, with errors that name the key and the nearest match; what is written reads back the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.base.errors import SettingsError
from coverslip.base.settings import dump_toml, override, parse, read_toml
from coverslip.base.study import Study, load_study

MINIMAL = {"cohort": {"table": "cohort.csv"}, "task": {"column": "cancer"}}


def study(**changes: object) -> Study:
    return parse(Study, {**MINIMAL, **changes}, source="study.toml")


def test_everything_but_cohort_and_task_has_a_default() -> None:
    assert study().encoder.name == "texture"
    with pytest.raises(SettingsError, match="'cohort' is missing"):
        parse(Study, {"task": {"column": "x"}}, source="study.toml")


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'tiles\.szie_px'.*Did you mean 'size_px'"):
        study(tiles={"szie_px": 224})


def test_an_unknown_section_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'tile'.*Did you mean 'tiles'"):
        study(tile={"size_px": 224})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("tiles", "size_px", "224"),
        ("tiles", "mpp", "0.5"),
        ("tiles", "mpp", float("nan")),
        ("tiles", "mpp", float("inf")),
        ("tiles", "mpp", 0.0),
        ("tiles", "size_px", 0),
        ("tiles", "min_tissue", 1.5),
        ("split", "folds", 1),
        ("split", "folds", True),
        ("fit", "epochs", 2.5),
        ("task", "level", "tile"),
    ],
)
def test_numbers_are_numbers_and_within_their_range(section: str, key: str, value: object) -> None:
    tables = {**MINIMAL, section: {**MINIMAL.get(section, {}), key: value}}
    with pytest.raises(SettingsError, match=f"{section}.{key}"):
        parse(Study, tables, source="study.toml")


def test_a_whole_number_serves_where_a_fraction_is_meant() -> None:
    assert study(tiles={"mpp": 1}).tiles.mpp == 1


def test_set_overrides_the_file_and_reads_toml_values() -> None:
    tables = override(MINIMAL, ["tiles.mpp=0.25", "encoder.name=texture", "split.allow_leaks=true", "output = 'a b'"])
    assert tables["tiles"]["mpp"] == 0.25
    assert tables["encoder"]["name"] == "texture"
    assert tables["split"]["allow_leaks"] is True
    assert tables["output"] == "a b"
    assert MINIMAL == {"cohort": {"table": "cohort.csv"}, "task": {"column": "cancer"}}


@pytest.mark.parametrize("text", ["tiles.mpp", "=3", "tiles.=3", "task.column.deeper=1"])
def test_a_malformed_set_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--set"):
        override(MINIMAL, [text])


def test_relative_paths_resolve_against_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "study.toml"
    file.write_text('[cohort]\ntable = "../cohort.csv"\n[task]\ncolumn = "x"\n')
    loaded = load_study(file)
    assert Path(loaded.cohort.table).resolve() == tmp_path / "cohort.csv"
    assert Path(loaded.output) == tmp_path / "sub" / "run"


def test_a_study_with_a_bom_and_a_non_ascii_path_loads(tmp_path: Path) -> None:
    file = tmp_path / "étude µ.toml"
    file.write_bytes(b"\xef\xbb\xbf" + '[cohort]\ntable = "kohörte.csv"\n[task]\ncolumn = "x"\n'.encode())
    assert load_study(file).cohort.table.endswith("kohörte.csv")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[cohort\n", b"a = NaN"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "study.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"study\.toml"):
        read_toml(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no settings file .*nowhere\.toml"):
        read_toml(tmp_path / "nowhere.toml")


def test_the_resolved_study_written_and_read_is_the_same() -> None:
    original = study(
        cohort={"table": 'a\\b "c".csv', "classes": {"pos neg": ["A", 1, 2.5, True], "n": ["C"]}},
        aggregator={"name": "abmil", "options": {"hidden": 64, "gated": False}},
    )
    text = dump_toml(original.model_dump())
    assert parse(Study, tomllib.loads(text), source="again") == original


_values = st.one_of(
    st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)
)
_keys = st.text(max_size=8)


@given(
    st.dictionaries(
        _keys, st.one_of(_values, st.lists(_values, max_size=3), st.dictionaries(_keys, _values, max_size=3))
    )
)
def test_any_table_of_plain_values_survives_toml(table: dict[str, object]) -> None:
    read = tomllib.loads(dump_toml(table))
    assert read == {k: v for k, v in table.items() if v != {}}
