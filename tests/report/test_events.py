"""Events by hysteresis: thresholds, shortest length, bridged gaps, memory."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config.streams import EventsConfig
from pipeline.errors import ConfigError
from pipeline.report.events import Event, Events

PLAIN = EventsConfig(on=0.6, off=0.4, min_length=0.0, merge=0.0)


def run(values: list[float], config: EventsConfig, step: float = 1.0) -> list[Event]:
    """One class `a` with these probabilities, a moment per `step` seconds; the rest is `b`, which is ignored."""
    events = Events(["a", "b"], config, ignored=["b"])
    found = [event for i, p in enumerate(values) for event in events.push(np.array([p, 1 - p]), i * step)]
    return found + events.flush()


def spans(found: list[Event]) -> list[tuple[float, float]]:
    return [(event.start, event.end) for event in found]


def test_an_event_begins_above_one_threshold_and_ends_below_the_other() -> None:
    (found,) = run([0.1, 0.5, 0.7, 0.5, 0.9, 0.5, 0.3, 0.5], PLAIN)
    assert found.label == "a"
    assert (found.start, found.end) == (1.5, 5.5)
    assert found.confidence == pytest.approx((0.7 + 0.5 + 0.9 + 0.5) / 4)
    assert (found.peak, found.peak_time) == (0.9, 4.0)


def test_one_threshold_would_make_many_events_of_a_probability_near_it() -> None:
    near = [0.61, 0.59] * 5
    assert len(run(near, PLAIN)) == 1
    assert len(run(near, EventsConfig(on=0.6, off=0.6, min_length=0.0, merge=0.0))) == 5


def test_what_begins_with_the_stream_or_ends_with_it_has_its_times() -> None:
    assert spans(run([0.9, 0.9, 0.9], PLAIN)) == [(0.0, 2.0)]


def test_a_short_event_is_left_out_unless_it_is_merged_with_the_next() -> None:
    values = [0.1, 0.9, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1]
    assert spans(run(values, EventsConfig(min_length=1.5, merge=0.0))) == []
    assert spans(run(values, EventsConfig(min_length=1.5, merge=3.0))) == [(0.5, 5.5)]
    assert spans(run(values, EventsConfig(min_length=0.0, merge=2.9))) == [(0.5, 1.5), (4.5, 5.5)]


def test_the_confidence_leaves_bridged_gaps_out() -> None:
    (found,) = run([0.9, 0.1, 0.7, 0.1], EventsConfig(min_length=0.0, merge=5.0))
    assert found.confidence == pytest.approx(0.8)


def test_an_event_comes_out_as_soon_as_it_cannot_be_merged_any_more() -> None:
    events = Events(["a"], EventsConfig(min_length=0.0, merge=1.0))
    out = [len(events.push(np.array([p]), float(i))) for i, p in enumerate([0.9, 0.1, 0.1, 0.1, 0.1])]
    assert out == [0, 0, 0, 1, 0]  # it ended at 0.5; the next could have begun at 1.5, not at 2.5
    assert events.flush() == []


def test_what_goes_on_is_seen_before_it_is_over() -> None:
    events = Events(["a", "b"], EventsConfig(min_length=1.0))
    seen = []
    for i in range(4):
        events.push(np.array([0.9, 0.1]), float(i) / 2)
        seen.append([event.label for event in events.going_on()])
    assert seen == [[], [], ["a"], ["a"]]


def test_classes_follow_each_other_without_a_gap() -> None:
    events = Events(["a", "b"], PLAIN)
    found = [e for i, p in enumerate([0.9, 0.8, 0.2, 0.1]) for e in events.push(np.array([p, 1 - p]), float(i))]
    found += events.flush()
    assert [(e.label, e.start, e.end) for e in found] == [("a", 0.0, 1.5), ("b", 1.5, 3.0)]


def test_after_a_flush_a_gap_is_not_bridged() -> None:
    events = Events(["a"], EventsConfig(min_length=0.0, merge=100.0))
    events.push(np.array([0.9]), 0.0)
    assert spans(events.flush()) == [(0.0, 0.0)]
    events.push(np.array([0.9]), 10.0)
    assert spans(events.flush()) == [(10.0, 10.0)]


def test_memory_does_not_grow_with_the_stream() -> None:
    events, rng = Events(["a", "b", "c"], EventsConfig()), np.random.default_rng(0)
    for i in range(400):
        events.push(rng.random(3), i / 10)
        assert len(events._open) <= 3


def test_thresholds_that_cross_are_refused() -> None:
    with pytest.raises(ConfigError, match="off must be at most on"):
        EventsConfig(on=0.3, off=0.5)
