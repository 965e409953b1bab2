"""The compiled steps of the LSTM family: equal to the equations, absent without harm."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import RecurrentConfig
from pipeline.model.cells import fused, lstm_native, native
from pipeline.model.cells.fused import FusedLayer
from pipeline.model.cells.lstm_scan import Kept, lstm_reference, lstm_scan

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="no C compiler")


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and nothing loaded."""
    monkeypatch.setenv("VIDEO_LSTM_CACHE", str(tmp_path))
    native.library.cache_clear()
    yield tmp_path / "native"
    native.library.cache_clear()


@needs_compiler
@settings(max_examples=80, deadline=None)
@given(
    steps=st.integers(1, 40),
    batch=st.integers(1, 5),
    size=st.integers(1, 40),  # more and less than a vector register holds
    variant=st.sampled_from(["plain", "peephole", "coupled"]),
    recurrent=st.booleans(),
    wanted=st.sampled_from(["hidden", "cells", "both", "last"]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),  # 30: gates shut and open, where exp must not overflow
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_the_equations_in_float64(
    steps: int, batch: int, size: int, variant: str, recurrent: bool, wanted: str, scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    coupled = variant == "coupled"
    rows = (3 if coupled else 4) * size
    values = [scale * torch.randn(steps, batch, rows), torch.randn(rows, size) / size**0.5]
    values += [torch.rand(batch, size) - 0.5, torch.randn(batch, size)]
    values += [torch.randn(3, size)] if variant == "peephole" else []
    mask = torch.rand(batch, size) if recurrent else None
    found = []
    for run, dtype in ((lstm_scan, torch.float32), (lstm_reference, torch.float64)):
        pre, weight, h, c, *more = leaves = [x.to(dtype).requires_grad_() for x in values]
        kept = Kept(None if mask is None else mask.to(dtype))
        assert lstm_native.suits(pre, None) == (dtype == torch.float32)
        hidden, cells = run(pre, weight, (h, c), more[0] if more else None, coupled, kept)
        losses = {"hidden": hidden.sin().sum(), "cells": cells.cos().sum(), "last": hidden[-1].sum()}
        losses["both"] = losses["hidden"] + losses["cells"]
        grads = torch.autograd.grad(losses[wanted], leaves, allow_unused=True, materialize_grads=True)
        found.append([hidden, cells, *grads])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours.double(), theirs, rtol=1e-4, atol=2e-5 * max(1.0, float(theirs.abs().max())))


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    begun=st.booleans(),
    drops=st.booleans(),
    seed=st.integers(0, 99),
)
def test_an_lstm_reads_clips_of_several_lengths_as_torch_reads_them_packed(
    lengths: list[int], begun: bool, drops: bool, seed: int
) -> None:
    """Hidden vectors, states and all gradients are those of `torch.nn.LSTM` in float64."""
    torch.manual_seed(seed)
    layer = FusedLayer(5, RecurrentConfig(kind="lstm", hidden=6, weight_dropout=0.3 if drops else 0.0)).train()
    x = torch.randn(len(lengths), 13, 5)  # longer than every clip: none is whole
    valid = torch.arange(13) < torch.tensor(lengths).unsqueeze(1)
    start = torch.randn(2, len(lengths), 6)
    draw = layer.draw(x)
    found = []
    for dtype in (torch.float32, torch.float64):  # only float32 is scanned
        copy = FusedLayer(5, RecurrentConfig(kind="lstm", hidden=6)).to(dtype)
        copy.load_state_dict(layer.state_dict())
        leaves = [part.to(dtype).requires_grad_() for part in (x * valid.unsqueeze(-1), *start)]
        drawn = {name: mask.detach().to(dtype) for name, mask in draw.items()}
        hidden, (h, c) = copy(leaves[0], torch.tensor(lengths), tuple(leaves[1:]) if begun else None, **drawn)
        hidden = hidden * valid.unsqueeze(-1)
        loss = hidden.sin().sum() + h.sum() + c.cos().sum()
        wanted = [*leaves, *copy.parameters()]
        grads = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        found.append([hidden, h, c, *grads])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_only_a_plain_lstm_with_clips_of_several_lengths_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole clips are faster in torch's own, and a projection or a GRU the C code does not have."""
    scanned = []
    monkeypatch.setattr(fused, "lstm_scan", lambda *given: scanned.append(1) or lstm_scan(*given))
    x, whole, several = torch.randn(2, 4, 5), torch.tensor([4, 4]), torch.tensor([4, 2])
    for config, lengths in (
        (RecurrentConfig(kind="lstm", hidden=6), whole),
        (RecurrentConfig(kind="lstm", hidden=6, proj_size=3), several),
        (RecurrentConfig(kind="gru", hidden=6), several),
        (RecurrentConfig(kind="rnn", hidden=6), several),
    ):
        FusedLayer(5, config)(x, lengths)
    assert not scanned
    FusedLayer(5, RecurrentConfig(kind="lstm", hidden=6))(x, several)
    assert scanned == [1]


@needs_compiler
@pytest.mark.parametrize("expand", [False, True])
def test_gradients_and_inputs_that_lie_strangely_in_memory(expand: bool) -> None:
    torch.manual_seed(0)
    pre = torch.randn(6, 4, 3, 8).transpose(1, 2).flatten(2)[:, :, :32]  # (6, 3, 32)
    state = torch.randn(2, 3).t().expand(3, 2)[:, :1].expand(3, 8), torch.randn(8, 3).t()
    weight, grads = torch.randn(8, 32).t() / 3, []
    for dtype, run in ((torch.float32, lstm_scan), (torch.float64, lstm_reference)):
        leaf = pre.detach().to(dtype, copy=True).requires_grad_()
        hidden, _ = run(leaf, weight.to(dtype), (state[0].to(dtype), state[1].to(dtype)))
        arriving = torch.ones((), dtype=dtype).expand_as(hidden) if expand else torch.ones_like(hidden)
        grads += torch.autograd.grad(hidden, leaf, arriving)
    assert torch.allclose(grads[0].double(), grads[1], atol=1e-5)


@needs_compiler
def test_what_is_no_number_stays_none() -> None:
    pre = torch.zeros(2, 1, 8)
    pre[0, 0, 0] = torch.nan
    hidden, cells = lstm_scan(pre, torch.eye(8, 2), (torch.zeros(1, 2), torch.zeros(1, 2)))
    assert torch.isnan(hidden[:, 0, 0]).all() and torch.isnan(cells[:, 0, 0]).all()


def test_without_a_compiler_the_numbers_are_nearly_the_same(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    given = torch.randn(5, 2, 12), torch.randn(12, 3), (torch.randn(2, 3), torch.randn(2, 3))
    with_code = lstm_scan(*given)
    native.library.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    assert native.library() is None
    torch.testing.assert_close(lstm_scan(*given), with_code, atol=1e-6, rtol=1e-6)
    assert not list(fresh.glob("*")) or native.compiler() is None


@needs_compiler
def test_a_compiler_that_fails_is_done_without(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(broken))
    assert native.library() is None
    assert not list(fresh.glob("*"))


@needs_compiler
def test_a_damaged_file_in_the_cache_is_made_anew(fresh: Path) -> None:
    assert isinstance(native.library(), ctypes.CDLL)
    (made,) = fresh.glob("*.so")
    os.replace(made, fresh / "in-use")  # a loaded file must not be overwritten
    made.write_bytes(b"not a library")
    native.library.cache_clear()
    assert isinstance(native.library(), ctypes.CDLL)


@needs_compiler
def test_processes_that_start_at_once_all_find_it(fresh: Path) -> None:
    code = "from pipeline.model.cells import native; assert native.library() is not None"
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    assert len(list(fresh.glob("*"))) == 1


def test_the_switch(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.library() is None and native.compiler() is None


def test_other_numbers_than_float32_do_without() -> None:
    assert not lstm_native.suits(torch.zeros(1, 1, 4, dtype=torch.float64), None)
    assert not lstm_native.suits(torch.zeros(1, 1, 4), torch.zeros(()))
