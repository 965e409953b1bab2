from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.segments import (
    OVERLAPS,
    Segments,
    count_matches,
    edit_score,
    find_segments,
    levenshtein,
    timed_segments,
)

sequences = st.lists(st.integers(0, 2), max_size=12)
label_tracks = st.lists(st.integers(0, 2), min_size=1, max_size=30).map(np.array)


def of(text: str) -> Segments:
    """Letters as labels; a dot is a moment without one."""
    return find_segments(np.array([ord(c) for c in text]), np.array([c != "." for c in text]))


def spans(found: Segments) -> list[tuple[str, int, int]]:
    return [(chr(label), int(a), int(b)) for label, a, b in zip(found.labels, found.starts, found.ends, strict=True)]


def test_segments_are_runs_and_end_at_moments_without_a_label() -> None:
    assert spans(of("aaabb")) == [("a", 0, 3), ("b", 3, 5)]
    assert spans(of("a")) == [("a", 0, 1)]
    assert spans(of("aa..aab.")) == [("a", 0, 2), ("a", 4, 6), ("b", 6, 7)]
    assert spans(of("....")) == []


@given(label_tracks, st.data())
def test_segments_cover_each_counted_moment_once_with_its_label(labels: np.ndarray, data: st.DataObject) -> None:
    counted = np.array(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    found = find_segments(labels, counted)
    rebuilt = np.full(len(labels), -1)
    for label, start, end in zip(found.labels, found.starts, found.ends, strict=True):
        assert end > start and (rebuilt[start:end] == -1).all()
        rebuilt[start:end] = label
    assert np.array_equal(rebuilt, np.where(counted, labels, -1))
    touching = found.starts[1:] == found.ends[:-1]
    assert (found.labels[1:] != found.labels[:-1])[touching].all()


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2), ("intention", "execution", 5)],
)
def test_levenshtein_by_hand(one: str, other: str, distance: int) -> None:
    letters = [np.array([ord(c) for c in text]) for text in (one, other)]
    assert levenshtein(*letters) == levenshtein(*letters[::-1]) == distance


@given(sequences, sequences)
def test_levenshtein_equals_its_definition(one: list[int], other: list[int]) -> None:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        replaced = distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    assert levenshtein(np.array(one), np.array(other)) == distance(len(one), len(other))


def test_edit_score_by_hand() -> None:
    assert edit_score(of("aaabbcc").labels, of("abbbbbc").labels) == 1  # boundaries do not matter
    assert edit_score(of("aabb").labels, of("abab").labels) == pytest.approx(1 - 2 / 4)  # over-segmentation does
    assert edit_score(of("aaaa").labels, of("bbbb").labels) == 0
    assert edit_score([0, 1, 2], [0, 2]) == pytest.approx(2 / 3)
    assert edit_score([], []) == 1 and edit_score([0], []) == 0


@given(sequences, sequences, st.permutations(range(3)))
def test_edit_score_is_symmetric_in_range_and_blind_to_names(
    one: list[int], other: list[int], names: list[int]
) -> None:
    score = edit_score(one, other)
    assert 0 <= score <= 1 and (score == 1) == (one == other)
    assert score == edit_score(other, one)
    assert score == edit_score([names[x] for x in one], [names[x] for x in other])


@pytest.mark.parametrize(
    ("true", "predicted", "overlap", "counts"),
    [
        ("aaaabbbb", "aaaabbbb", 0.5, (2, 0, 0)),
        ("aaaabbbb", "aabbbbbb", 0.5, (2, 0, 0)),  # a: 2 of 4; b: 4 of 6
        ("aaaabbbb", "aabbbbbb", 0.51, (1, 1, 1)),  # a is not enough now
        ("aaaabbbb", "aaaaaaaa", 0.5, (1, 0, 1)),  # a: 4 of 8; b is missed
        ("aaaabbbb", "bbbbaaaa", 0.1, (0, 2, 2)),  # the right labels at the wrong time
        ("aaaaaaaa", "aaabaaaa", 0.25, (1, 2, 0)),  # both pieces overlap enough (3 of 8, 4 of 8): one counts
        ("aaaaaaaa", "aaabaaaa", 0.5, (1, 2, 0)),  # 4 of 8 counts, 3 of 8 does not
        ("aa.aa", "aaaaa", 0.5, (2, 0, 0)),  # nothing reaches over a moment without a label
        ("aaaa", "bbbb", 0.1, (0, 1, 1)),
        ("abababab", "aaaaaaaa", 0.1, (1, 0, 7)),  # overlaps each a by 1 of 8; finds one of them
    ],
)
def test_matches_by_hand(true: str, predicted: str, overlap: float, counts: tuple[int, int, int]) -> None:
    counted = np.array([c != "." for c in true])
    found = find_segments(np.array([ord(c) for c in predicted]), counted)
    assert count_matches(of(true), found, overlap) == counts


@given(label_tracks, st.sampled_from(OVERLAPS), st.data())
def test_matches_add_up_and_a_stricter_overlap_finds_no_more(
    true: np.ndarray, overlap: float, data: st.DataObject
) -> None:
    predicted = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(true), max_size=len(true))))
    one, other = find_segments(true), find_segments(predicted)
    assert count_matches(one, one, overlap) == (len(one), 0, 0)
    hits, extra, missed = count_matches(one, other, overlap)
    assert hits + extra == len(other) and hits + missed == len(one)
    assert count_matches(one, other, min(1.0, overlap + 0.3))[0] <= hits


def test_no_segment_at_all_matches_nothing() -> None:
    assert count_matches(of("..."), of("..."), 0.5) == (0, 0, 0)
    assert count_matches(of("..."), of("aab"), 0.5) == (0, 2, 0)


@given(label_tracks, st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_boundaries_in_seconds_cover_the_clip_and_give_the_labels_back(
    labels: np.ndarray, rest: float, seed: int
) -> None:
    times = np.random.default_rng(seed).uniform(0.01, 1.0, len(labels)).cumsum() - 0.01
    duration = float(times[-1]) + rest
    found = timed_segments(labels, times, duration)
    assert found[0][1] == 0 and found[-1][2] == duration
    assert all(before[2] == after[1] for before, after in itertools.pairwise(found))
    for label, start, end, moments in found:
        assert (labels[moments] == label).all()
        inside = (times >= start) & (times < end)
        inside[-1] |= end == duration
        assert np.array_equal(np.flatnonzero(inside), np.arange(len(times))[moments])


def test_boundaries_in_seconds_by_hand() -> None:
    found = timed_segments(np.array([1, 1, 0]), np.array([0.0, 0.5, 1.5]), 2.0)
    assert [(label, start, end) for label, start, end, _ in found] == [(1, 0.0, 1.0), (0, 1.0, 2.0)]
