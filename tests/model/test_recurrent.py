"""The recurrence: state is a value, whole = chunks = one by one, start weights as they should be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pipeline.config import RECURRENT_OPTIONS, RecurrentConfig
from pipeline.model.cells import LAYERS
from pipeline.model.cells.regularise import LockedDropout
from pipeline.model.recurrent import Recurrent, State, valid_mask

KINDS = ("none", *LAYERS)


def make(kind: str, size: int = 4, hidden: int = 6, layers: int = 2, both: bool = False, **more: Any) -> Recurrent:
    config = RecurrentConfig(kind=kind, hidden=hidden, layers=layers, bidirectional=both, **more)  # type: ignore[arg-type]
    return Recurrent(size, config).eval()


def tensors(state: State) -> list[torch.Tensor]:
    return [part for layer in state or () for part in layer]


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    extra=st.integers(0, 2),
    size=st.integers(1, 9),
    hidden=st.integers(1, 8),
    layers=st.integers(1, 3),
    both=st.booleans(),
    seed=st.integers(0, 9),
)
def test_padded_batch_equals_each_clip_alone(
    kind: str,
    lengths: list[int],
    extra: int,
    size: int,
    hidden: int,
    layers: int,
    both: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    net = make(kind, size, hidden, layers, both).double()  # so that what amplifies rounding is held to 1e-10 too
    steps = max(lengths) + extra
    x = torch.randn(len(lengths), steps, size, dtype=torch.float64)
    x[~valid_mask(torch.tensor(lengths), steps, x.device)] = torch.nan  # read by nobody
    with torch.no_grad():
        together, state = net(x, torch.tensor(lengths))
        assert together.shape == (len(lengths), steps, net.output_size)
        for row, length in enumerate(lengths):
            alone, own = net(x[row : row + 1, :length], torch.tensor([length]))
            assert torch.allclose(together[row, :length], alone[0], rtol=1e-10, atol=1e-10)
            assert (together[row, length:] == 0).all()
            for batched, single in zip(tensors(state), tensors(own), strict=True):
                assert torch.allclose(batched[row], single[0], rtol=1e-10, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    batch=st.integers(1, 3),
    layers=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_whole_equals_chunks(kind: str, cuts: list[int], batch: int, layers: int, seed: int) -> None:
    torch.manual_seed(seed)
    net = make(kind, layers=layers).double()
    x = torch.randn(batch, sum(cuts), 4, dtype=torch.float64)
    with torch.no_grad():
        whole, end = net(x, torch.full((batch,), sum(cuts)))
        state, parts = None, []
        for part in x.split(cuts, dim=1):
            hidden, state = net(part, torch.full((batch,), part.shape[1]), state)
            parts.append(hidden)
    assert torch.allclose(whole, torch.cat(parts, 1), rtol=1e-10, atol=1e-10)
    for one, other in zip(tensors(end), tensors(state), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", LAYERS)
def test_one_step_at_a_time_over_a_long_clip(kind: str) -> None:
    torch.manual_seed(0)
    net = make(kind, size=16, hidden=32).double()
    x = torch.randn(2, 200, 16, dtype=torch.float64)
    with torch.no_grad():
        whole, _ = net(x, torch.tensor([200, 200]))
        state, steps = None, []
        for t in range(200):
            hidden, state = net(x[:, t : t + 1], torch.tensor([1, 1]), state)
            steps.append(hidden)
    assert torch.allclose(whole, torch.cat(steps, 1), rtol=1e-10, atol=1e-10)  # float64: some amplify rounding


@pytest.mark.parametrize("kind", LAYERS)
def test_state_of_clips_of_different_lengths_goes_on_where_each_ended(kind: str) -> None:
    torch.manual_seed(0)
    net = make(kind)
    first, second = torch.randn(2, 4, 4), torch.randn(2, 3, 4)
    with torch.no_grad():
        _, state = net(first, torch.tensor([2, 4]))
        after, _ = net(second, torch.tensor([3, 3]), state)
        whole, _ = net(torch.cat([first[:1, :2], second[:1]], 1), torch.tensor([5]))
    assert torch.allclose(after[0], whole[0, 2:], atol=1e-6)


def test_a_bidirectional_recurrence_takes_no_state() -> None:
    net = make("lstm", both=True)
    hidden, state = net(torch.randn(1, 3, 4), torch.tensor([3]))
    assert state is None
    with pytest.raises(ValueError, match="takes no state"):
        net(torch.randn(1, 3, 4), torch.tensor([3]), ((hidden[:, 0], hidden[:, 0]),))


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_both_directions_equal_torch(kind: str) -> None:
    torch.manual_seed(0)
    net = make(kind, layers=2, both=True)
    theirs = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](4, 6, 2, batch_first=True, bidirectional=True)
    for depth in range(2):
        for layer, suffix in ((net.layers[depth], ""), (net.backward_layers[depth], "_reverse")):
            for name, value in layer.net.named_parameters():  # type: ignore[union-attr, operator]
                getattr(theirs, f"{name[:-1]}{depth}{suffix}").data.copy_(value)
    x, lengths = torch.randn(3, 5, 4), torch.tensor([5, 2, 1])
    with torch.no_grad():
        expected, _ = theirs(pack_padded_sequence(x, lengths, batch_first=True))
        assert torch.allclose(net(x, lengths)[0], pad_packed_sequence(expected, batch_first=True)[0], atol=1e-6)


def test_residual_connections() -> None:
    torch.manual_seed(0)
    plain, residual = make("gru", size=6, layers=2), make("gru", size=6, layers=2, residual=True)
    residual.load_state_dict(plain.state_dict())
    x, lengths = torch.randn(2, 4, 6), torch.tensor([4, 3])
    with torch.no_grad():
        first, _ = plain.layers[0](x, lengths, None)
        first = first + x
        second, _ = plain.layers[1](first, lengths, None)
        expected = (second + first).masked_fill(~valid_mask(lengths, 4, x.device).unsqueeze(-1), 0.0)
        assert torch.allclose(residual(x, lengths)[0], expected, atol=1e-6)
    assert make("gru", size=3, residual=True)(torch.randn(1, 2, 3), torch.tensor([2]))[0].shape == (1, 2, 6)


def test_sizes_and_streamability() -> None:
    assert make("none", size=7).output_size == 7
    assert make("lstm", hidden=6).output_size == 6
    assert make("lstm", hidden=6, both=True).output_size == 12
    assert make("gru").streamable
    assert not make("gru", both=True).streamable
    assert make("none", both=True).streamable  # nothing reads backwards
    assert not list(make("none").parameters())


def test_dropout_acts_between_layers_in_training_only() -> None:
    torch.manual_seed(0)
    net = Recurrent(5, RecurrentConfig(kind="lstm", hidden=6, layers=2, dropout=0.5))
    x, lengths = torch.randn(2, 4, 5), torch.tensor([4, 2])
    assert not torch.equal(net.train()(x, lengths)[0], net(x, lengths)[0])
    assert torch.equal(net.eval()(x, lengths)[0], net(x, lengths)[0])


def test_variational_dropout_keeps_its_mask_over_all_steps() -> None:
    torch.manual_seed(0)
    x = torch.ones(3, 50, 8)
    kept = LockedDropout(0.5).train()(x)
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert 0 < (kept == 0).sum() < kept.numel()
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(LockedDropout(0.5).eval()(x), x)


@pytest.mark.parametrize("kind", LAYERS)
def test_truncation_cuts_the_gradient_and_changes_no_value(kind: str) -> None:
    torch.manual_seed(0)
    whole, cut = make(kind, layers=1, dropout=0.0), make(kind, layers=1, dropout=0.0, truncate=3)
    cut.load_state_dict(whole.state_dict())
    x, lengths = torch.randn(3, 8, 4, requires_grad=True), torch.tensor([8, 4, 2])
    ours, ends = cut.train()(x, lengths)
    theirs, expected = whole.train()(x, lengths)
    assert torch.allclose(ours, theirs, atol=1e-6)
    for one, other in zip(tensors(ends), tensors(expected), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    (far,) = torch.autograd.grad(ours[0, 7].sum(), x)
    assert (far[0, :6] == 0).all() and (far[0, 6:] != 0).any()
    (full,) = torch.autograd.grad(theirs[0, 7].sum(), x)
    assert (full[0, :6] != 0).any()


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, {"weight_dropout": 0.5}) for kind in RECURRENT_OPTIONS["weight_dropout"]]
    + [(kind, {"variational": True, "dropout": 0.5}) for kind in RECURRENT_OPTIONS["zoneout"]],
)
def test_truncation_does_not_draw_again_what_holds_for_a_whole_clip(kind: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    whole, cut = make(kind, layers=1, **options), make(kind, layers=1, truncate=3, **options)
    cut.load_state_dict(whole.state_dict())
    x, lengths = torch.randn(2, 8, 4), torch.tensor([8, 5])
    torch.manual_seed(1)
    expected, _ = whole.train()(x, lengths)
    torch.manual_seed(1)
    assert torch.allclose(cut.train()(x, lengths)[0], expected, atol=1e-6)
    assert not torch.allclose(whole.eval()(x, lengths)[0], expected, atol=1e-3)  # something was dropped


@pytest.mark.parametrize("kind", LAYERS)
def test_bfloat16_around_it_leaves_the_state_in_float32(kind: str) -> None:
    torch.manual_seed(0)
    net = make(kind)
    x, lengths = torch.randn(2, 5, 4), torch.tensor([5, 3])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden, state = net(x.bfloat16(), lengths)
    assert hidden.dtype == torch.float32 and {part.dtype for part in tensors(state)} == {torch.float32}
    with torch.no_grad():
        assert torch.equal(hidden, net(x.bfloat16().float(), lengths)[0])


@pytest.mark.parametrize("kind", LAYERS)
def test_order_in_the_batch_does_not_matter(kind: str) -> None:
    torch.manual_seed(0)
    net = make(kind)
    x, lengths = torch.randn(4, 6, 4), torch.tensor([2, 6, 1, 5])
    order = torch.tensor([3, 0, 2, 1])
    with torch.no_grad():
        hidden, state = net(x, lengths)
        shuffled, other = net(x[order], lengths[order])
    assert torch.allclose(hidden[order], shuffled, atol=1e-6)
    for one, two in zip(tensors(state), tensors(other), strict=True):
        assert torch.allclose(one[order], two, atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("initialisation", ["default", "orthogonal", "chrono"])
def test_a_seed_fixes_the_start_and_gradients_reach_every_weight(kind: str, initialisation: str) -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(make(kind, initialisation=initialisation, chrono_steps=20))
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, other)
    net = nets[0].train()
    net(torch.randn(3, 6, 4), torch.tensor([6, 4, 2]))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
