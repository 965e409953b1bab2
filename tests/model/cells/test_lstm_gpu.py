"""The GPU's kernels: in Triton's interpreter on any machine, on a GPU where there is one."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from pipeline.model.cells import lstm_gpu
from pipeline.model.cells.lstm_scan import Kept, _backward, _forward_steps, lstm_reference, lstm_scan

VARIANTS = ("plain", "peephole", "coupled")


def compare(
    sizes: tuple[int, int, int], variant: str, more: bool, device: str = "cpu", tolerance: float = 1e-4
) -> None:
    """Kernels against the plain loops; `more`: with recurrent dropout, and gradients of the cell states."""
    steps, batch, size = sizes
    coupled = variant == "coupled"
    rows = (3 if coupled else 4) * size
    generator = torch.Generator().manual_seed(steps * size)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    pre, weight, h, c = draw(steps, batch, rows), draw(rows, size) / size**0.5, draw(batch, size), draw(batch, size)
    peephole = draw(3, size) if variant == "peephole" else None
    mask = draw(batch, size).sigmoid() if more else None
    ours, theirs = torch.full_like(pre, torch.nan), torch.full_like(pre, torch.nan)
    found = lstm_gpu.forward_steps(pre, ours, weight, peephole, h, c, mask, coupled)
    expected = _forward_steps(pre, theirs, weight, peephole, h, c, mask, None, None, coupled)
    torch.testing.assert_close((*found, ours), (*expected, theirs), atol=tolerance, rtol=tolerance)
    arriving = draw(steps, batch, size), draw(steps, batch, size) if more else None
    back = lstm_gpu.backward_steps(ours, found[1], weight, peephole, c, *arriving, mask, coupled)
    wanted = _backward(theirs, expected[1], weight, peephole, c, *arriving, Kept(mask), coupled)
    for one, other in zip(back, wanted, strict=True):
        if one is None or other is None:
            assert one is other
        else:
            torch.testing.assert_close(one, other, atol=10 * tolerance, rtol=10 * tolerance)


def interpreted() -> None:
    """What the test below runs in a process of its own."""
    torch.backends.cudnn.allow_tf32 = False
    lstm_gpu.UNITS = 32  # one program has all units: the interpreter runs one after the other, so none may wait
    for variant, more in itertools.product(VARIANTS, (False, True)):
        compare((3, 18, 20), variant, more)
    print("equal")


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernels_give_the_numbers_of_the_plain_loops() -> None:
    script = f"import sys; sys.path[:0] = {sys.path!r}; import test_lstm_gpu; test_lstm_gpu.interpreted()"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")


@pytest.mark.cuda
@gpu
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 3, 40), (64, 16, 256), (33, 50, 300), (20, 700, 128), (9, 4, 3000)])
def test_a_gpu_gives_the_numbers_of_the_plain_loops(
    sizes: tuple[int, int, int], variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert lstm_gpu.works(0)
    for more in (False, True):
        compare(sizes, variant, more, "cuda")


@pytest.mark.cuda
@gpu
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_scan_uses_the_kernels_and_differentiates_as_the_equations(variant: str) -> None:
    torch.manual_seed(0)
    coupled, size = variant == "coupled", 64
    pre = torch.randn(30, 20, (3 if coupled else 4) * size, device="cuda", requires_grad=True)
    weight = (torch.randn(pre.shape[-1], size, device="cuda") / 8).requires_grad_()
    h, c = (torch.randn(20, size, device="cuda", requires_grad=True) for _ in range(2))
    peephole = torch.randn(3, size, device="cuda", requires_grad=True) if variant == "peephole" else None
    assert lstm_gpu.suits(pre, None)
    leaves = [leaf for leaf in (pre, weight, h, c, peephole) if leaf is not None]
    found = []
    for run in (lstm_scan, lstm_reference):
        hidden, cells = run(pre, weight, (h, c), peephole, coupled)
        found.append((hidden, cells, *torch.autograd.grad(hidden.sin().sum() + cells.cos().sum(), leaves)))
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= 5e-3 * theirs.norm()  # TF32, as torch.nn.LSTM by default
