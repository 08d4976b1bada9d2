"""Results on disk: the schema, the round trip, and what is refused."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pandas as pd
import pytest
from conftest import tidy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbd.errors import CbdError
from cbd.report import results

ROW = {"experiment": "alpha", "method": "inherited", "metric": "loss", "value": 4.5, "seed": 0, "tokens": 0}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CBD_ROOT", str(tmp_path))
    return tmp_path


def test_root_prefers_the_variable_then_the_repository_then_here(folder, monkeypatch):
    assert results.root() == folder
    monkeypatch.delenv("CBD_ROOT")
    package = folder / "repository" / "cbd"
    package.mkdir(parents=True)
    monkeypatch.setattr(results, "__file__", str(package / "report" / "results.py"))
    monkeypatch.chdir(folder)
    assert results.root() == folder  # installed: no notebooks and pyproject.toml beside the package
    (package.parent / "notebooks").mkdir()
    (package.parent / "pyproject.toml").touch()
    assert results.root() == package.parent
    assert results.figures_folder("smoke") == package.parent / "figures" / "smoke"


def test_a_table_fills_what_rows_leave_out():
    frame = tidy([ROW, ROW | {"alpha": 0.5, "flops": 10**20}])
    assert tuple(frame.columns) == results.COLUMNS
    assert frame["spec"].tolist() == ["", ""]
    assert math.isnan(frame["alpha"][0]) and frame["flops"][1] == 1e20
    assert frame["parameters"].isna().all() and frame["seed"].dtype == "Int64"


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"colour": "red"}, "colour"),
        ({"value": "much"}, "value"),
        ({"seed": 0.5}, "seed"),
        ({"tokens": float("inf")}, "tokens"),
        ({"method": None}, "method"),
        ({"metric": ""}, "metric"),
        ({"spec": 4}, "spec"),
    ],
)
def test_bad_cells_are_refused_by_column(change, column):
    with pytest.raises(CbdError, match=f"column '{column}'"):
        tidy([ROW, ROW | change])


def test_columns_missing_or_repeated_are_named():
    frame = tidy([ROW])
    with pytest.raises(CbdError, match="'stderr' is missing"):
        results.validate(frame.drop(columns="stderr"))
    with pytest.raises(CbdError, match="'value' occurs twice"):
        results.validate(pd.concat([frame, frame[["value"]]], axis=1))


def test_another_experiments_rows_are_refused():
    with pytest.raises(CbdError, match="'alpha' in the table of 'chain'"):
        results.write_table(tidy([ROW]), "smoke", "chain")


@pytest.mark.parametrize("name", ["", "../x", "a b", ".hidden"])
def test_names_stay_inside_the_folder(name):
    with pytest.raises(CbdError, match="no name for a file"):
        results.read_table("smoke", name)
    with pytest.raises(CbdError, match="no name for a file"):
        results.figures_folder(name)


rows = st.fixed_dictionaries(
    {
        "experiment": st.just("alpha"),
        "method": st.sampled_from(["NA", "none", "direct, equal compute", 'a "quoted" one', "zwölf"]),
        "metric": st.sampled_from(["loss", "bits_per_byte"]),
        "alpha": st.none() | st.floats(0, 1),
        "seed": st.none() | st.integers(0, 9),
        "parameters": st.none() | st.integers(0, 2**62),
        "flops": st.none() | st.integers(0, 10**21),
        "value": st.floats(allow_nan=True, allow_infinity=True),
        "stderr": st.none() | st.floats(0, 1),
        "recipe": st.sampled_from(["", "0123", "1e5", "00ab"]),
    }
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, min_size=1, max_size=6))
def test_round_trip_is_bit_identical(folder, found):
    frame = tidy(found)
    first = results.write_table(frame, "smoke", "alpha").read_bytes()
    again = results.read_table("smoke", "alpha")
    assert results.write_table(again, "smoke", "alpha").read_bytes() == first
    pd.testing.assert_frame_equal(results.read_table("smoke", "alpha"), again, check_exact=True)
    pd.testing.assert_frame_equal(frame, again, rtol=1e-7)
    for column in ("method", "recipe", "seed", "parameters"):  # text and whole numbers survive exactly
        pd.testing.assert_series_equal(again[column], frame[column])


def test_tables_are_found_by_their_files():
    assert results.names("smoke") == []
    for name in ("chain", "alpha"):
        results.write_table(tidy([ROW | {"experiment": name}]), "smoke", name)
    results.write_records([], "smoke", "bridge")
    assert results.names("smoke") == ["alpha", "chain"]


def test_column_order_of_the_caller_does_not_matter_but_row_order_is_kept(folder):
    frame = tidy([ROW | {"seed": seed} for seed in (2, 0, 1)])
    path = results.write_table(frame[sorted(frame.columns)], "smoke", "alpha")
    assert path == folder / "results" / "smoke" / "alpha.csv"
    assert results.read_table("smoke", "alpha")["seed"].tolist() == [2, 0, 1]
    assert b"\r" not in path.read_bytes()


def test_a_failed_write_leaves_the_old_table_and_no_scraps(folder, monkeypatch):
    path = results.write_table(tidy([ROW]), "smoke", "alpha")
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        results.write_table(tidy([ROW, ROW | {"seed": 1}]), "smoke", "alpha")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["alpha.csv"]


def test_a_missing_or_broken_table_names_the_command():
    for read in (results.read_table, results.read_records):
        with pytest.raises(CbdError, match="cbd run alpha --scale laptop"):
            read("laptop", "alpha")
    path = results.table_path("laptop", "alpha")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with pytest.raises(CbdError, match="cbd run alpha --scale laptop"):
        results.read_table("laptop", "alpha")
    path.write_bytes(b"experiment,method\n1,2,3\n4,5,6,7\n")
    with pytest.raises(CbdError):
        results.read_table("laptop", "alpha")


def test_records_are_ordered_by_key_and_read_back():
    records = [
        {"key": "b", "tokens": 3, "nested": {"z": 1, "a": [1.5, None]}},
        {"key": "a", "machine": "zwölf"},
    ]
    path = results.write_records(records, "smoke", "chain")
    first = path.read_bytes()
    assert [json.loads(line)["key"] for line in first.decode().splitlines()] == ["a", "b"]
    assert results.read_records("smoke", "chain") == records[::-1]
    assert not results.intact("smoke", "chain"), "no table"
    assert results.write_records(records[::-1], "smoke", "chain").read_bytes() == first
    assert results.write_records([], "smoke", "chain").read_bytes() == b""


def test_a_table_is_intact_as_its_records_have_it():
    path = results.write_table(tidy([ROW, ROW | {"seed": 1}]), "smoke", "alpha")
    assert not results.intact("smoke", "alpha"), "no records"
    results.write_records([{"key": "a"}], "smoke", "alpha")
    assert results.intact("smoke", "alpha")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"\n", b"\r\n"))  # a checkout with other line ends
    assert results.intact("smoke", "alpha")
    for changed in (whole[:-9], whole.replace(b"4.5", b"4.4"), b""):
        path.write_bytes(changed)
        assert not results.intact("smoke", "alpha")


def test_bad_records_are_refused():
    with pytest.raises(CbdError, match="lacks 'key'"):
        results.write_records([{"tokens": 3}], "smoke", "chain")
    for odd in (float("nan"), np.float32(1), {1, 2}):
        with pytest.raises(CbdError, match="record of a cannot be written"):
            results.write_records([{"key": "a", "odd": odd}], "smoke", "chain")
    path = results.records_path("smoke", "chain")
    path.parent.mkdir(parents=True)
    path.write_text('{"key": "a"}\n{"key": ')
    with pytest.raises(CbdError, match="line 2 is not JSON"):
        results.read_records("smoke", "chain")


def test_the_newest_date_is_in_utc():
    finished = ["2026-01-03T08:00:00+00:00", "2026-01-04T00:30:00+02:00", "2025-12-31T23:00:00Z"]
    assert results.newest("smoke", "chain") is None
    records = [{"key": str(i), "finished": text} for i, text in enumerate(finished)]
    results.write_records([*records, {"key": "none"}], "smoke", "chain")
    assert results.newest("smoke", "chain") == "2026-01-03"
    results.write_records([{"key": "a"}], "smoke", "chain")
    assert results.newest("smoke", "chain") is None
    results.write_records([{"key": "a", "finished": "yesterday"}], "smoke", "chain")
    with pytest.raises(CbdError, match=r"'finished' is no ISO date .*yesterday"):
        results.newest("smoke", "chain")
