"""The whole store as one table, and the summary of all arms."""
import math

import pytest

from bench import frame, summary
from bench.measurement import Measurement
from bench.store import Store
from tests.conftest import Smoke


@pytest.fixture(scope="module")
def records(smoke_store: Smoke):
    return frame.records(Store(smoke_store.root, create=False))


def test_one_row_a_value_with_the_documented_columns(records, smoke_store: Smoke):
    store = Store(smoke_store.root, create=False)
    assert list(records.columns) == list(frame.COLUMNS)
    assert len(records) == sum(len(store.record(s)["values"]) for s in store.stages())
    assert set(records.kind) == {"train", "measure"}
    assert records[["stage", "kind", "metric", "resolution", "censored", "device", "threads", "stack", "wall_s", "torch", "python", "source_hash"]].notna().all(axis=None)


def test_what_a_training_stage_tells(records):
    train = records[records.kind == "train"]
    columns = ["failed", "density_prunable", "density_all", "kept", "n_train", "trial", "model", "data", "optimizer", "lr", "batch_size", "stop_it", "masked"]
    assert train[columns].notna().all(axis=None)
    plain = train[(train.data == "mnist1d") & (train.model == "lenet") & ~train.masked.astype(bool)]
    assert set(plain[plain.optimizer == "adam"].lr) == {0.0012} and set(plain[plain.optimizer == "sgd"].lr) == {0.4, 0.05}
    assert (plain.density_prunable == 1).all() and set(plain.n_val) == {500} and set(plain.stop_it) == {150}
    accuracy = records[records.metric == "test_accuracy_pct"]
    assert accuracy.value.between(0, 100).all() and set(accuracy["at"]) == {"early-stop", "end", "20it"}  # conv miniatures read a declared iteration too
    assert records[records.metric == "early_stop_it"]["at"].isna().all()


def test_what_is_measured_layer_by_layer_says_the_layer(records):
    excess = records[records.metric == "init_magnitude_excess_pct"]
    assert set(excess.layer) == {1, 2, 3} and excess.density_all.isna().all()


def test_points_join_arms_and_levels_to_stages(records, smoke_store: Smoke):
    points = frame.points(Store(smoke_store.root, create=False))
    joined = points.merge(records, on="stage")
    level_2 = joined[(joined.arm == "ticket") & (joined.level == 2) & (joined.protocol == "lenet-mnist") & (joined.metric == "early_stop_it")]
    assert len(level_2) >= 1 and level_2.density_all.between(0.6, 0.7).all()
    noise = points[points.arm == "ticket-noise"].iloc[0]
    assert noise.setting == {"noise_sd": 1.0}


def test_an_empty_store_gives_an_empty_table(tmp_path):
    assert len(frame.records(Store(tmp_path / "new"))) == 0


# ---- all arms ------------------------------------------------------------------------------------------------
def measured(trial: int, value: float, draw: int = 0, metric: str = "test_accuracy_pct", at: str | None = "end", **more) -> Measurement:
    return Measurement("p", {"arm": "mine", "level": 3}, {"weights_remaining_pct": 51.3}, trial, draw, metric, at, value, 0.0, density=0.5, **more)


def test_draws_are_averaged_within_a_trial_before_trials_are():
    (entry,) = summary.arms([measured(0, 90), measured(0, 94, draw=1), measured(1, 96)])
    (value,) = entry["values"]
    assert value == {"metric": "test_accuracy_pct", "at": "end", "mean": 94, "sd": pytest.approx(math.sqrt(8)), "n": 2, "censored": 0}
    assert (entry["n"], entry["density"], entry["weights_remaining_pct"], entry["condition"]) == (2, 0.5, 51.3, {"arm": "mine", "level": 3})


def test_trials_that_failed_are_named_and_left_out():
    (entry,) = summary.arms([measured(0, 90), measured(1, math.inf, failed="diverged"), measured(2, 92)])
    assert entry["failed"] == ["trial 1 diverged"] and entry["n"] == 2 and entry["values"][0]["mean"] == 91


def test_an_arm_of_which_no_trial_counts_still_has_its_entry():
    (entry,) = summary.arms([measured(0, math.nan, failed="diverged")])
    assert entry["n"] == 0 and entry["values"] == [] and entry["failed"] == ["trial 0 diverged"]


def test_one_trial_has_no_spread_and_censored_trials_are_counted():
    (entry,) = summary.arms([measured(0, 900, metric="early_stop_it", at=None, censored=True)])
    assert summary.find(entry, "early_stop_it", None) == {"metric": "early_stop_it", "at": None, "mean": 900, "sd": None, "n": 1, "censored": 1}
    assert summary.find(entry, "early_stop_it", "end") is None
