"""The benchmark of a head's update: that its two ways are what it says, and are timed in turns."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pipeline.model.cells import fused, lstm_native, regularise


@pytest.fixture(scope="module")
def bench() -> Any:
    import bench_head

    return bench_head


def test_torchs_way_has_neither_our_scan_nor_our_masks(bench: Any) -> None:
    with bench.torchs():
        assert regularise.drop is F.dropout
        assert not fused.suits(torch.zeros(1), None)
    assert regularise.drop is not F.dropout
    assert fused.suits is lstm_native.suits


def test_every_row_is_measured_in_turns(bench: Any) -> None:
    rows = bench.bench(2)
    assert [row.name for row in rows] == ["lstm", "lstm_inference", "dropout", "update"]
    assert all(row.theirs > 0 and row.ours > 0 and row.ratio == row.theirs / row.ours for row in rows)
    calls: list[str] = []
    bench.in_turns("turns", lambda: calls.append("theirs"), lambda: calls.append("ours"), 1)
    assert calls == ["ours", "theirs", "theirs", "ours"] * 2


def test_the_table_and_the_ratios_are_of_the_same_rows(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "bench", lambda repeats: [bench.Row("lstm", 0.008, 0.004)])
    monkeypatch.setattr(bench, "prepare_process", lambda: None)
    assert bench.main(["--json"]) == 0 and json.loads(capsys.readouterr().out) == {"lstm": 2.0}
    assert bench.main([]) == 0 and "| lstm | 8.00 | 4.00 | 2.00 |" in capsys.readouterr().out
