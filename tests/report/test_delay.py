"""How soon answers are right."""

from pathlib import Path

import numpy as np

from pipeline.report.delay import FEWEST, delay_figure, delay_table, delays, passages


def test_passages_end_where_the_label_or_the_clip_changes_and_skip_what_has_none() -> None:
    truth, begins = np.array([1, 1, 1, 0, -1, -1, 2]), np.array([1, 0, 1, 0, 0, 0, 0], dtype=bool)
    assert passages(truth, begins) == [(1, 0, 2), (1, 2, 3), (0, 3, 4), (2, 6, 7)]


def test_an_answer_counts_from_the_moment_from_which_it_stays_right() -> None:
    answers = np.array([0, 1, 0, 1, 1, 0, 0, 0])
    scores = delays([answers], [[(1, 0, 5), (0, 5, 8)]])
    assert scores["accuracy"] == 6 / 8
    assert scores["curve"] == [0.5, 1.0, 0.5]  # the second passage has three moments
    assert scores["median"] == 0 and scores["never"] == 0.0 and scores["passages"] == 2
    wrong = delays([np.array([1, 1, 0])], [[(1, 0, 3)]])
    assert wrong["median"] is None and wrong["never"] == 1.0


def test_the_curve_ends_where_few_passages_are_left() -> None:
    parts = [(0, 3 * i, 3 * i + 3) for i in range(FEWEST)] + [(0, 3 * FEWEST, 3 * FEWEST + 9)]
    assert len(delays([np.zeros(3 * FEWEST + 9, int)], [parts])["curve"]) == 3


def test_table_and_figure(tmp_path: Path) -> None:
    scores = {"never": delays([np.array([1, 1, 0])], [[(1, 0, 3)]]), "event": delays([np.array([0, 1])], [[(1, 0, 2)]])}
    text = delay_table(scores, 4.0)
    assert "1 (0.25 s)" in text and "-" in text.splitlines()[-2] + text.splitlines()[-1]
    delay_figure(scores, 4.0, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
