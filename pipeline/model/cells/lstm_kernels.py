"""`lstm_scan`'s loops over time as two GPU kernels in Triton; imported where there is a GPU alone.

One launch goes through all steps. A program owns `UNITS` units of the hidden state and `ROWS` clips of the batch. What
all programs of the same clips make in a step, each of them needs in the next: they count themselves in at a number in
the GPU's memory and wait until it is complete. So all of a launch must run at the same time; `lstm_gpu` launches no
more of them than the GPU has processors.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def wait_for_all(arrived, programs, step):
    """What each of the programs stored before is seen by all of them after."""
    tl.debug_barrier()
    if programs > 1:
        tl.atomic_add(arrived, 1, sem="release", scope="gpu")
        while tl.atomic_add(arrived, 0, sem="acquire", scope="gpu") < programs * (step + 1):
            pass
    tl.debug_barrier()


@triton.jit
def tanh(x):
    """By the sigmoid, which the language has."""
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def forward_kernel(
    pre, weight, peephole, h_start, c_start, recurrent, gates, hidden, cells, arrived,
    steps, batch, size, first_part,
    PEEPHOLE: tl.constexpr, COUPLED: tl.constexpr, RECURRENT: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Fill gates (T, B, G * H), hidden and cells (T, B, H)."""
    part = first_part + tl.program_id(1)
    rows = part * ROWS + tl.arange(0, ROWS)
    units = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    clips, mine = rows[:, None] < batch, units[None, :] < size
    here = clips & mine
    GATES: tl.constexpr = 3 if COUPLED else 4
    at, at_gates = rows[:, None] * size + units[None, :], rows[:, None] * GATES * size + units[None, :]
    c = tl.load(c_start + at, mask=here, other=0.0)
    if PEEPHOLE:
        to_i = tl.load(peephole + units, mask=units < size, other=0.0)[None, :]
        to_f = tl.load(peephole + size + units, mask=units < size, other=0.0)[None, :]
        to_o = tl.load(peephole + 2 * size + units, mask=units < size, other=0.0)[None, :]
    h_before = h_start
    for step in range(steps):
        now = pre + step * batch * GATES * size + at_gates
        if not COUPLED:
            i = tl.load(now, mask=here, other=0.0)
            now += size
        f = tl.load(now, mask=here, other=0.0)
        g = tl.load(now + size, mask=here, other=0.0)
        o = tl.load(now + 2 * size, mask=here, other=0.0)
        for first in range(0, size, DEPTH):
            deep = first + tl.arange(0, DEPTH)
            at_h = rows[:, None] * size + deep[None, :]
            seen = clips & (deep[None, :] < size)
            h = tl.load(h_before + at_h, mask=seen, other=0.0, cache_modifier=".cg")
            if RECURRENT:
                h *= tl.load(recurrent + at_h, mask=seen, other=0.0)
            w = weight + units[None, :] * size + deep[:, None]
            used = mine & (deep[:, None] < size)
            if not COUPLED:
                i = tl.dot(h, tl.load(w, mask=used, other=0.0), i, input_precision=PRECISION)
                w += size * size
            f = tl.dot(h, tl.load(w, mask=used, other=0.0), f, input_precision=PRECISION)
            g = tl.dot(h, tl.load(w + size * size, mask=used, other=0.0), g, input_precision=PRECISION)
            o = tl.dot(h, tl.load(w + 2 * size * size, mask=used, other=0.0), o, input_precision=PRECISION)
        if PEEPHOLE:
            i += to_i * c
            f += to_f * c
        f = tl.sigmoid(f)
        g = tanh(g)
        out = gates + step * batch * GATES * size + at_gates
        if COUPLED:
            i = 1 - f
        else:
            i = tl.sigmoid(i)
            tl.store(out, i, mask=here)
            out += size
        c = f * c + i * g
        if PEEPHOLE:
            o += to_o * c
        o = tl.sigmoid(o)
        tl.store(out, f, mask=here)
        tl.store(out + size, g, mask=here)
        tl.store(out + 2 * size, o, mask=here)
        tl.store(cells + step * batch * size + at, c, mask=here)
        h_before = hidden + step * batch * size
        tl.store(h_before + at, o * tanh(c), mask=here)
        wait_for_all(arrived + part, tl.num_programs(0), step)


@triton.jit
def backward_kernel(
    gates, cells, weight, peephole, c_start, grad_hidden, grad_cells, recurrent, grad_pre, grad_h, grad_c, arrived,
    steps, batch, size, first_part,
    PEEPHOLE: tl.constexpr, COUPLED: tl.constexpr, RECURRENT: tl.constexpr, TO_CELLS: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Fill grad_pre (T, B, G * H), grad_h and grad_c (B, H)."""
    part = first_part + tl.program_id(1)
    rows = part * ROWS + tl.arange(0, ROWS)
    units = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    clips, mine = rows[:, None] < batch, units[None, :] < size
    here = clips & mine
    GATES: tl.constexpr = 3 if COUPLED else 4
    at, at_gates = rows[:, None] * size + units[None, :], rows[:, None] * GATES * size + units[None, :]
    if PEEPHOLE:
        to_i = tl.load(peephole + units, mask=units < size, other=0.0)[None, :]
        to_f = tl.load(peephole + size + units, mask=units < size, other=0.0)[None, :]
        to_o = tl.load(peephole + 2 * size + units, mask=units < size, other=0.0)[None, :]
    if RECURRENT:
        share = tl.load(recurrent + at, mask=here, other=0.0)
    dh = tl.zeros((ROWS, UNITS), dtype=tl.float32)
    dc = tl.zeros((ROWS, UNITS), dtype=tl.float32)
    c = tl.load(cells + (steps - 1) * batch * size + at, mask=here, other=0.0)
    for back in range(steps):
        step = steps - 1 - back
        dh += tl.load(grad_hidden + step * batch * size + at, mask=here, other=0.0)
        if TO_CELLS:
            dc += tl.load(grad_cells + step * batch * size + at, mask=here, other=0.0)
        now = gates + step * batch * GATES * size + at_gates
        if not COUPLED:
            i = tl.load(now, mask=here, other=0.0)
            now += size
        f = tl.load(now, mask=here, other=0.0)
        g = tl.load(now + size, mask=here, other=0.0)
        o = tl.load(now + 2 * size, mask=here, other=0.0)
        if COUPLED:
            i = 1 - f
        earlier = c_start
        if step > 0:
            earlier = cells + (step - 1) * batch * size
        former = tl.load(earlier + at, mask=here, other=0.0)
        shown = tanh(c)
        d_o = dh * shown * o * (1 - o)
        dc += dh * o * (1 - shown * shown)
        if PEEPHOLE:
            dc += d_o * to_o
        d_g = dc * i * (1 - g * g)
        out = grad_pre + step * batch * GATES * size
        mine_out = out + at_gates
        if COUPLED:
            d_f = dc * (former - g) * f * (1 - f)
        else:
            d_f = dc * former * f * (1 - f)
            d_i = dc * g * i * (1 - i)
            tl.store(mine_out, d_i, mask=here)
            mine_out += size
        dc *= f
        if PEEPHOLE:
            dc += d_i * to_i + d_f * to_f
        tl.store(mine_out, d_f, mask=here)
        tl.store(mine_out + size, d_g, mask=here)
        tl.store(mine_out + 2 * size, d_o, mask=here)
        wait_for_all(arrived + part, tl.num_programs(0), back)
        dh = tl.zeros((ROWS, UNITS), dtype=tl.float32)
        for first in range(0, GATES * size, DEPTH):
            deep = first + tl.arange(0, DEPTH)
            inside = deep < GATES * size
            d = tl.load(
                out + rows[:, None] * GATES * size + deep[None, :],
                mask=clips & inside[None, :], other=0.0, cache_modifier=".cg",
            )  # fmt: skip
            w = tl.load(weight + deep[:, None] * size + units[None, :], mask=inside[:, None] & mine, other=0.0)
            dh = tl.dot(d, w, dh, input_precision=PRECISION)
        if RECURRENT:
            dh *= share
        c = former
    tl.store(grad_h + at, dh, mask=here)
    tl.store(grad_c + at, dc, mask=here)
