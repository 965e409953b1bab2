"""Splits: no unit in two of them, every row in one, the wanted shares, and the same answer every time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import DataConfig
from pipeline.data.splits import assign, report, split_digest
from pipeline.errors import DataError


def catalog(rows: Sequence[tuple[str, str | None, str | None, str]], root: str = "/data") -> pd.DataFrame:
    """Rows of (label, group, split, digest) as a catalog."""
    labels, groups, splits, digests = (list(column) for column in zip(*rows, strict=True))
    frame = pd.DataFrame(
        {
            "path": [f"{root}/{label}/{index:04d}.mp4" for index, label in enumerate(labels)],
            "label": labels,
            "group": pd.Series(groups, dtype="str"),
            "split": pd.Series(splits, dtype="str"),
            "digest": digests,
            "clip": digests,
            "status": ["ok" if digest else "not found" for digest in digests],
        }
    )
    return frame


def singletons(*counts: int) -> pd.DataFrame:
    """So many clips of each class, none related to another."""
    labels = [f"class{k}" for k, count in enumerate(counts) for _ in range(count)]
    return catalog([(label, None, None, f"{index:064x}") for index, label in enumerate(labels)])


def config(val: float = 0.15, test: float = 0.2, seed: int = 0) -> DataConfig:
    return DataConfig(root="/data", val=val, test=test, split_seed=seed)  # type: ignore[arg-type]


row = st.tuples(
    st.sampled_from("abc"),
    st.one_of(st.none(), st.sampled_from([f"g{k}" for k in range(12)])),
    st.none(),
    st.one_of(st.just(""), st.integers(0, 40).map(lambda k: f"{k:064x}")),
)
catalogs = st.lists(row, min_size=1, max_size=60).map(catalog)
configs = st.builds(config, st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.2, 0.4]), st.integers(0, 5))


def try_assign(frame: pd.DataFrame, data: DataConfig) -> pd.DataFrame | None:
    try:
        return assign(frame, data)
    except DataError as error:
        if "cannot fill" not in str(error):
            raise
        return None


@settings(max_examples=150, deadline=None)
@given(catalogs, configs)
def test_no_unit_in_two_splits_and_every_row_in_one(frame: pd.DataFrame, data: DataConfig) -> None:
    done = try_assign(frame, data)
    wanted = {"train"} | {name for name, share in (("val", data.val), ("test", data.test)) if share > 0}
    if done is None:
        assert len(wanted) > 1
        return
    assert set(done["split"]) == wanted
    assert (done.groupby("unit")["split"].nunique() == 1).all()
    assert (done.dropna(subset="group").groupby("group")["split"].nunique() == 1).all()
    assert (done[done["digest"] != ""].groupby("digest")["split"].nunique() == 1).all()
    pd.testing.assert_frame_equal(done.drop(columns=["split", "unit"]), frame.drop(columns="split"))


@settings(max_examples=80, deadline=None)
@given(catalogs, configs, st.integers(0, 100))
def test_neither_order_nor_place_matters(frame: pd.DataFrame, data: DataConfig, seed: int) -> None:
    done = try_assign(frame, data)
    moved = frame.assign(path=frame["path"].str.replace("/data", "/mnt/other disk"))
    shuffled = try_assign(moved.sample(frac=1, random_state=seed), data)
    if done is None or shuffled is None:
        assert done is None and shuffled is None
        return
    pd.testing.assert_frame_equal(shuffled.sort_index()[["split", "unit"]], done[["split", "unit"]])
    assert split_digest(shuffled) == split_digest(done)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=6), configs)
def test_shares_of_singletons(counts: list[int], data: DataConfig) -> None:
    frame = singletons(*counts)
    done = try_assign(frame, data)
    if done is None:
        return
    total = len(frame)
    for name, share in (("val", data.val), ("test", data.test)):
        size = (done["split"] == name).sum()
        assert abs(size - share * total) <= 1 + 0.5 * len(counts), (name, size, share * total)
        for label, count in enumerate(counts):
            held = ((done["split"] == name) & (done["label"] == f"class{label}")).sum()
            assert abs(held - share * count) <= 2, (name, label, held, share * count)
    if total >= len(counts) + done["split"].nunique() - 1:
        assert set(done.loc[done["split"] == "train", "label"]) == set(frame["label"])


def test_the_only_clip_of_a_class_learns_where_a_third_split_can_fill_its_place() -> None:
    done = assign(singletons(1, 3), config(0.1, 0.4, seed=1))
    assert set(done.loc[done["split"] == "train", "label"]) == {"class0", "class1"}
    assert set(done["split"]) == {"train", "val", "test"}


def test_seeds_differ() -> None:
    frame = singletons(40, 40)
    splits = [assign(frame, config(seed=seed))["split"].tolist() for seed in (0, 1, 0)]
    assert splits[0] == splits[2] != splits[1]


def test_uneven_groups_come_near_the_shares() -> None:
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str | None, str | None, str]] = []
    for group in range(40):
        for _ in range(int(rng.integers(1, 12))):
            rows.append((str(rng.choice(list("abcd"))), f"g{group}", None, f"{len(rows):064x}"))
    shares = assign(catalog(rows), config())["split"].value_counts(normalize=True)
    assert abs(shares["test"] - 0.2) < 0.04 and abs(shares["val"] - 0.15) < 0.04


def test_failed_rows_are_assigned_too() -> None:
    frame = catalog([("ab"[k % 2], None, None, "" if k % 5 == 0 else f"{k:064x}") for k in range(40)])
    done = assign(frame, config())
    assert done["split"].isin(["train", "val", "test"]).all()
    assert done["unit"].nunique() == 40


def test_a_label_stays_in_training_with_a_clip_that_decodes() -> None:
    rows: list[tuple[str, str | None, str | None, str]] = [("a", f"g{k}", None, f"{k:064x}") for k in range(12)]
    rows += [("rare", "r0", None, ""), ("rare", "r1", None, ""), ("rare", "r2", None, "f" * 64)]
    for seed in range(20):
        done = assign(catalog(rows), config(seed=seed))
        assert done["split"].iloc[-1] == "train"
        assert set(done["split"]) == {"train", "val", "test"}


def test_the_only_unit_of_a_small_split_is_exchanged() -> None:
    rows: list[tuple[str, str | None, str | None, str]] = [
        (label, group, None, f"{index:064x}")
        for index, (label, group) in enumerate(
            [("a", "g0"), ("b", "g0"), ("a", "g1"), ("b", "g1"), ("a", "g2"), ("c", "g2")]
        )
    ]
    for seed in range(20):
        done = assign(catalog(rows), config(seed=seed))
        assert set(done.loc[done["split"] == "train", "label"]) >= {"c"}
        assert set(done["split"]) == {"train", "val", "test"}


def given_rows(splits: Sequence[str | None]) -> pd.DataFrame:
    return catalog([("ab"[k % 2], f"g{k:02d}", split, f"{k:064x}") for k, split in enumerate(splits)])


def test_given_splits_stay_and_validation_is_cut_from_training() -> None:
    frame = given_rows(["train"] * 32 + ["test"] * 8)
    done = assign(frame, config())
    assert (done["split"][32:] == "test").all() and (done["split"][:32] != "test").all()
    assert (done["split"] == "val").sum() == 6
    assert set(assign(frame, config(val=0.0))["split"]) == {"train", "test"}


def test_given_validation_is_left_alone() -> None:
    frame = given_rows(["train"] * 20 + ["val"] * 4 + ["test"] * 4)
    assert assign(frame, config())["split"].tolist() == frame["split"].tolist()


def test_rows_without_a_split_join_those_that_have_one() -> None:
    done = assign(given_rows(["test"] * 4 + ["val"] * 4 + [None] * 20), config())
    assert done["split"].tolist() == ["test"] * 4 + ["val"] * 4 + ["train"] * 20
    done = assign(given_rows(["train"] * 4 + [None] * 40), config())
    assert 7 <= (done["split"] == "test").sum() <= 9
    assert (done["split"][:4].isin(["train", "val"])).all()


def test_the_rest_of_a_group_follows_its_split() -> None:
    frame = catalog(
        [("a", "g1", "test", "1" * 64), ("b", "g1", None, "2" * 64), ("b", "g2", "train", "3" * 64)]
        + [("a", "g3", "train", "4" * 64), ("a", "g4", None, "2" * 64)]
    )
    done = assign(frame, config(val=0.0))
    assert done["split"].tolist() == ["test", "test", "train", "train", "test"]
    assert done["unit"].tolist() == ["g1", "g1", "g2", "g3", "g1"]


def test_too_few_groups() -> None:
    with pytest.raises(DataError, match=r"2 group\(s\)"):
        assign(catalog([("a", "g1", None, "1" * 64), ("b", "g2", None, "2" * 64)]), config())
    with pytest.raises(DataError, match="cannot fill train, val"):
        assign(given_rows(["train", "test"]), config())
    with pytest.raises(DataError, match="some to train"):
        assign(given_rows(["val", "test"]), config())


def test_the_split_digest_sees_every_change() -> None:
    done = assign(singletons(10, 10), config())
    value = split_digest(done)
    swapped = done["split"].to_numpy().copy()
    first = {name: int(np.flatnonzero(swapped == name)[0]) for name in ("train", "test")}
    swapped[[first["train"], first["test"]]] = ["test", "train"]
    assert split_digest(done.assign(split=swapped)) != value
    assert split_digest(done.assign(label="x")) != value
    assert split_digest(done.iloc[1:]) != value


def test_report() -> None:
    frame = catalog(
        [("a", "g1", "train", "1" * 64), ("b", "g1", "train", "2" * 64), ("a", "g2", "test", "3" * 64)]
        + [("b", "g3", "test", "")]
    )
    assert report(assign(frame, config(val=0.0))) == {
        "counts": {"train": {"a": 1, "b": 1}, "val": {"a": 0, "b": 0}, "test": {"a": 1, "b": 0}},
        "units": {"train": 1, "val": 0, "test": 1},
        "missing": {"test": ["b"]},
    }


def test_no_test_set_of_a_single_source_where_there_are_others() -> None:
    sizes = [68, 56, 49, 40, 19, 10, 10, 4, 3, 1]
    rows = [(f"g{k}/{n}.mp4", "ab"[n % 2], f"g{k}") for k, size in enumerate(sizes) for n in range(size)]
    frame = pd.DataFrame(rows, columns=["path", "label", "group"]).assign(split=None, digest="")
    done = assign(frame, DataConfig(val=0.15, test=0.2))
    units = done.groupby("split")["unit"].nunique()
    assert units["test"] > 1 and units["val"] > 1


def test_the_seed_moves_groups_of_one_size() -> None:
    rows = [(f"g{k}/{n}.mp4", "ab"[n % 2], f"g{k}") for k in range(6) for n in range(8)]
    frame = pd.DataFrame(rows, columns=["path", "label", "group"]).assign(split=None, digest="")
    chosen = {
        tuple(assign(frame, DataConfig(split_seed=seed)).query("split == 'test'")["unit"].unique()) for seed in range(8)
    }
    assert len(chosen) > 1
