"""The replayed reporting queue: what every order must obey, and what the summary says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import inference
from inference.triage import (
    ARMS,
    Exams,
    Protocol,
    auc,
    delays_days,
    end_of,
    replay,
    slots_from_history,
    slots_from_schedule,
    switch_on,
)
from inference.triage_site import Site, generate
from inference.triage_summary import simulate, sweep
from node.cli import app
from node.errors import Rejected
from node.exam_table import read_exams, read_schedule, read_sites, write_exams

SITES = Path(inference.__file__).with_name("triage_sites.yaml")
FAST = Protocol(random_draws=40, resamples=200)
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def site_b() -> Exams:
    return generate(read_sites(SITES)["hospital_b"], seed=5)


@pytest.fixture(scope="module")
def result(site_b: Exams) -> dict[str, object]:
    waiting, slots = switch_on(site_b, slots_from_history(site_b), 60, as_reported=True)
    return simulate(waiting, slots, FAST)


def array(*values: float) -> np.ndarray:
    return np.array(values, float)


def test_the_lowest_key_is_read_first_among_those_that_have_arrived() -> None:
    read = replay(array(0, 1, 2, 10), array(3, 4, 11, 12), array(5, 1, 3, 0))
    assert read.tolist() == [12, 3, 4, 11]


def test_among_equals_the_oldest_is_read_first() -> None:
    assert replay(array(0, 1, 2), array(5, 6, 7), np.zeros(3)).tolist() == [5, 6, 7]


def test_a_slot_without_an_exam_is_lost_and_unread_exams_stay_unread() -> None:
    read = replay(array(5, 6), array(1, 7), array(0, 1))
    assert read[0] == 7
    assert np.isnan(read[1])


def test_no_exam_waits_longer_than_the_limit_while_slots_come() -> None:
    acquired = np.arange(0.0, 400, 1.0)
    slots = np.arange(10.0, 410, 1.0)
    key = np.where(np.arange(400) == 0, 9.0, 0.0)  # the first would starve
    key += np.linspace(0, -1, 400)  # the newest is always preferred
    assert np.isnan(replay(acquired, slots, key)[0]) or replay(acquired, slots, key)[0] > 300
    guarded = replay(acquired, slots, key, max_wait_h=48)
    assert np.nanmax(guarded - acquired) <= 60


times = st.lists(st.floats(0, 1000), min_size=1, max_size=60).map(sorted)


@given(times, times, st.randoms(use_true_random=False))
def test_every_order_has_the_same_sum_of_delays(acquired: list[float], slots: list[float], random: object) -> None:
    exams = Exams(
        acquired_h=np.array(acquired),
        reported_h=np.full(len(acquired), np.nan),
        abnormal=np.zeros(len(acquired)),
        probability=np.zeros(len(acquired)),
    )
    slots_h = np.array(slots)
    end = end_of(exams, slots_h)
    totals, unread = [], []
    for _ in range(3):
        key = np.array([random.random() for _ in acquired])  # type: ignore[attr-defined]
        read = replay(exams.acquired_h, slots_h, key)
        days = delays_days(exams, read, end)
        assert np.all(days >= 0)
        totals.append(float(days.sum()))
        unread.append(int(np.isnan(read).sum()))
    assert totals == pytest.approx([totals[0]] * 3)
    assert len(set(unread)) == 1


def test_a_weekly_schedule() -> None:
    rates = np.zeros((7, 24))
    rates[0, 9], rates[2, 14] = 2, 0.5
    slots = slots_from_schedule(rates, start_weekday_hour=0, hours=21 * 24)
    assert len(slots) == 7  # three Mondays of two, three Wednesdays of a half
    assert [int(s // 24 % 7) for s in slots].count(0) == 6
    assert all(9 <= s % 24 <= 15 for s in slots)
    shifted = slots_from_schedule(rates, start_weekday_hour=24, hours=7 * 24)
    assert int(shifted[-1] // 24) == 6  # from Tuesday on, Monday is the last day


def test_auc_is_that_of_scikit_learn(site_b: Exams) -> None:
    assert auc(site_b) == pytest.approx(roc_auc_score(site_b.abnormal, site_b.probability))
    ties = np.round(site_b.probability, 1)
    tied = Exams(acquired_h=site_b.acquired_h, reported_h=site_b.reported_h, abnormal=site_b.abnormal, probability=ties)
    assert auc(tied) == pytest.approx(roc_auc_score(site_b.abnormal, ties))


def test_the_sites_have_the_published_auc_and_delays() -> None:
    for name, wanted_days in (("hospital_a", 28.0), ("hospital_b", 9.0)):
        delays, aucs = [], []
        for seed in range(1, 7):
            exams = generate(read_sites(SITES)[name], seed)
            after = (exams.acquired_h > 60 * 24) & (exams.abnormal > 0.5)
            days = delays_days(exams, exams.reported_h, end_of(exams, slots_from_history(exams)))
            delays.append(days[after].mean())
            aucs.append(auc(exams))
        assert np.mean(delays) == pytest.approx(wanted_days, rel=0.1)
        assert np.mean(aucs) == pytest.approx(0.943, abs=0.005)


def test_same_seed_same_exams(site_b: Exams) -> None:
    again = generate(read_sites(SITES)["hospital_b"], seed=5)
    assert np.array_equal(again.acquired_h, site_b.acquired_h)
    assert np.array_equal(again.probability, site_b.probability)


def test_summary(result: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    arms = result["arms"]
    assert tuple(arms) == ARMS
    means = {arm: arms[arm]["all"]["mean_days"] for arm in ARMS}
    assert list(means.values()) == pytest.approx([means["fifo"]] * 5)
    abnormal = {arm: arms[arm]["abnormal"]["mean_days"] for arm in ARMS}
    assert abnormal["oracle"] <= abnormal["model"] < 0.5 * abnormal["fifo"]
    assert abs(abnormal["random"] - abnormal["fifo"]) < 1.5
    assert arms["model"]["normal"]["mean_days"] > arms["fifo"]["normal"]["mean_days"]
    assert arms["model"]["missed_abnormal"]["mean_days"] > abnormal["model"]
    for arm in ARMS:
        low, high = arms[arm]["abnormal"]["ci"]
        assert low <= abnormal[arm] <= high
        assert arms[arm]["unread"] == arms["fifo"]["unread"]
        n = sum(group["n"] for group in arms[arm]["categories"].values())
        assert n == arms[arm]["abnormal"]["n"]
    assert result["model_against_random"]["p"] == pytest.approx(1 / 41)
    assert result["harm"]["normal"]["mean_days_later_than_fifo"] > 0
    json.dumps(result, allow_nan=False)


def test_the_sweep_trades_missed_for_flagged(site_b: Exams) -> None:
    waiting, slots = switch_on(site_b, slots_from_history(site_b), 60, as_reported=True)
    rows = sweep(waiting, slots, FAST, (0.1, 0.5, 0.9))
    for key, falling in (("sensitivity", True), ("flagged", True), ("specificity", False), ("missed_abnormal", False)):
        values = [row[key] for row in rows]
        assert values == sorted(values, reverse=falling)


def test_truth_does_not_come_from_the_model(
    site_b: Exams, result: dict[str, dict[str, dict[str, dict[str, int]]]]
) -> None:
    reversed_ = Exams(
        acquired_h=site_b.acquired_h,
        reported_h=site_b.reported_h,
        abnormal=site_b.abnormal,
        probability=1 - site_b.probability,
        category=site_b.category,
    )
    waiting, slots = switch_on(reversed_, slots_from_history(reversed_), 60, as_reported=True)
    wrong = simulate(waiting, slots, FAST)
    right = result["arms"]
    assert wrong["arms"]["model"]["abnormal"]["n"] == right["model"]["abnormal"]["n"]
    assert wrong["arms"]["model"]["abnormal"]["mean_days"] > right["fifo"]["abnormal"]["mean_days"]
    assert wrong["arms"]["oracle"]["abnormal"]["mean_days"] == right["oracle"]["abnormal"]["mean_days"]


def test_unknown_truth_and_missing_probability_still_queue(site_b: Exams) -> None:
    abnormal, probability = site_b.abnormal.copy(), site_b.probability.copy()
    abnormal[::10], probability[::7] = np.nan, np.nan
    exams = Exams(
        acquired_h=site_b.acquired_h, reported_h=site_b.reported_h, abnormal=abnormal, probability=probability
    )
    waiting, slots = switch_on(exams, slots_from_history(exams), 60, as_reported=True)
    arms = simulate(waiting, slots, FAST)["arms"]
    assert arms["model"]["all"]["n"] > arms["model"]["abnormal"]["n"] + arms["model"]["normal"]["n"]
    assert arms["model"]["all"]["mean_days"] == pytest.approx(arms["fifo"]["all"]["mean_days"])


def test_tables_are_written_and_read_back(site_b: Exams, tmp_path: Path) -> None:
    write_exams(site_b, tmp_path / "exams.csv")
    table = read_exams(tmp_path / "exams.csv")
    assert table.left_out == {}
    assert np.allclose(np.diff(table.exams.acquired_h), np.diff(site_b.acquired_h), atol=1e-3)
    assert np.allclose(table.exams.probability, site_b.probability, atol=1e-6)
    assert table.exams.category == site_b.category
    import polars

    polars.read_csv(tmp_path / "exams.csv", try_parse_dates=True).write_parquet(tmp_path / "exams.parquet")
    parquet = read_exams(tmp_path / "exams.parquet")
    assert np.allclose(parquet.exams.acquired_h, table.exams.acquired_h)
    assert np.array_equal(np.isnan(parquet.exams.reported_h), np.isnan(table.exams.reported_h))


HEADER = "accession,acquired,reported,label,probability,category\n"
GOOD = "A1,2024-01-01T10:00,2024-01-02T10:00,1,0.9,mass\n"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("accession,acquired\nA1,2024-01-01\n", "lacks reported, label, probability"),
        (HEADER, "no usable exam"),
        (HEADER + "A1,yesterday,,1,0.9,\n", "line 2, acquired: not a time"),
        (HEADER + GOOD + "A2,2024-01-01T10:00,,maybe,0.9,\n", "line 3, label"),
        (HEADER + "A1,2024-01-01T10:00,,1,90,\n", "line 2, probability: must lie between 0 and 1"),
        (HEADER + "A1,2024-01-01T10:00,,1,nan,\n", "line 2, probability"),
        (HEADER + GOOD + "A2,2024-01-01T10:00+01:00,,1,0.9,\n", "time zone"),
    ],
)
def test_bad_tables_are_refused_by_line_and_column(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "exams.csv"
    path.write_text(content)
    with pytest.raises(Rejected, match=match) as caught:
        read_exams(path)
    assert "A1" not in caught.value.text


def test_lines_left_out_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "exams.csv"
    path.write_text(HEADER + GOOD + GOOD + "A2,,2024-01-02T10:00,1,0.9,\nA3,2024-01-03T10:00,2024-01-02T10:00,0,0.1,\n")
    table = read_exams(path)
    assert len(table.exams) == 1
    assert table.left_out == {"duplicate_accession": 1, "no_time_of_acquisition": 1, "reported_before_acquired": 1}


@pytest.mark.parametrize(
    ("change", "match"),
    [({"auc": 1.0}, "auc"), ({"reading_by_weekday": [0] * 7}, "not all 0"), ({"nonsense": 1}, "nonsense")],
)
def test_bad_sites_are_refused(tmp_path: Path, change: dict[str, object], match: str) -> None:
    values = yaml.safe_load(SITES.read_text())["hospital_a"]
    (tmp_path / "sites.yaml").write_text(yaml.safe_dump({"x": {**values, **change}}))
    with pytest.raises(Rejected, match=match):
        read_sites(tmp_path / "sites.yaml")


@pytest.mark.parametrize("content", ["- 1", "monday: {9: 1}", "mon: {25: 1}", "mon: {9: -1}", "mon: {}", "{"])
def test_bad_schedules_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.yaml").write_text(content)
    with pytest.raises(Rejected):
        read_schedule(tmp_path / "s.yaml")


def test_commands(tmp_path: Path) -> None:
    exams, document = tmp_path / "exams.csv", tmp_path / "out.json"
    made = RUNNER.invoke(app, ["triage", "site", "--name", "hospital_b", "--out", str(exams), "--seed", "3"])
    assert made.exit_code == 0, made.output
    (tmp_path / "s.yaml").write_text(
        "\n".join(f"{day}: {{9: 2, 14: 3}}" for day in ("mon", "tue", "wed", "thu", "fri"))
    )
    for extra in ([], ["--schedule", str(tmp_path / "s.yaml")], ["--levels", "0.3,0.8", "--max-wait-days", "30"]):
        ran = RUNNER.invoke(
            app,
            ["triage", "simulate", "--exams", str(exams), "--json", str(document), "--draws", "5",
             "--plots", str(tmp_path / "plots"), *extra],
        )  # fmt: skip
        assert ran.exit_code == 0, ran.output
        arms = json.loads(document.read_text())["arms"]
        assert set(arms) == set(ARMS)
        assert arms["random"]["all"]["mean_days"] == pytest.approx(arms["fifo"]["all"]["mean_days"])
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {"delay_by_class.png", "delay_by_category.png", "threshold_sweep.png"}
    wrong = RUNNER.invoke(app, ["triage", "site", "--name", "nowhere", "--out", str(exams)])
    assert isinstance(wrong.exception, Rejected)
    assert RUNNER.invoke(app, ["triage", "simulate", "--exams", str(exams), "--levels", "2"]).exit_code == 2


def test_site_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="days must be"):
        Site(
            days=0, exams_a_day=1, arrivals_by_weekday=(1,) * 7, scanner_hours=(8, 20), reading_hours=(9, 17),
            reading_by_weekday=(1,) * 7, reading_spread=0.1, backlog_days=1, backlog_response=0.1,
            order_spread_days=1, abnormal_share=0.5, auc=0.9, categories={"mass": 1},
        )  # fmt: skip
