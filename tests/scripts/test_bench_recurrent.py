"""The benchmark of the recurrent layers: that it runs, and what its names mean."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from pipeline.model.cells import LAYERS

PATH = Path(__file__).parents[2] / "scripts" / "bench_recurrent.py"
spec = importlib.util.spec_from_file_location("bench_recurrent", PATH)
assert spec is not None and spec.loader is not None
bench = importlib.util.module_from_spec(spec)
sys.modules["bench_recurrent"] = bench
spec.loader.exec_module(bench)


def test_every_layer_is_measured_against_torchs() -> None:
    row = bench.measure((2, 3, 32, 32), list(LAYERS), 1, "cpu")
    names = {"torch.nn.LSTM", "loop", *(bench.SHORT.get(kind, kind) for kind in LAYERS)}
    assert set(row.training) == set(row.inference) == names
    assert min(*row.training.values(), *row.inference.values()) > 0
    found = bench.ratios([row])
    assert found["peephole_t3"] == round(row.training["peephole"] / row.training["torch.nn.LSTM"], 3)
    assert "gru_t3_inference" in found and "torch.nn.LSTM_t3" not in found
    assert bench.table([row]).count("\n") == 2 * (len(names) + 2)
