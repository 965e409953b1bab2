"""Importance in time and heat in space: exact where mathematics says what it must be, and finding what was planted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import Config, EncoderConfig, FlowConfig, RecurrentConfig, VideoConfig
from pipeline.model import importance as imp
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.model.encoder import build_encoder
from pipeline.model.heat import finer_place, heat_at, heat_maps

GRID, STEPS = 4, 10


def model_of(streams: str = "flow", **recurrent: object) -> Classifier:
    torch.manual_seed(1)
    config = Config(
        video=VideoConfig(streams=streams, size=32),  # type: ignore[arg-type]
        flow=FlowConfig(grid=GRID),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False, grid=2),
        recurrent=RecurrentConfig(**({"hidden": 12, "layers": 1} | recurrent)),  # type: ignore[arg-type]
    )
    return build_classifier(config, 4).eval()


def inputs_of(streams: str) -> dict[str, Tensor]:
    torch.manual_seed(2)
    both = {
        "rgb": torch.randint(0, 256, (1, 6, 3, 32, 32), dtype=torch.uint8),
        "flow": torch.randn(1, 6, 2 * GRID * GRID),
    }
    return {name: both[name] for name in streams.split("+")}


@pytest.mark.parametrize("streams", ["rgb", "flow", "rgb+flow"])
def test_integrated_gradients_are_complete_and_the_heat_of_a_grid_is_what_they_are(streams: str) -> None:
    model, inputs = model_of(streams), inputs_of(streams)
    score = imp.class_score(1)
    features = imp.pooled(model, imp.feature_maps(model, inputs))
    gradients = imp.mean_gradients(model, features, score)
    moments, missing = imp.integrated_gradients(model, features, gradients, score)
    ends = imp.masked_scores(model, features, torch.tensor([[False] * 6, [True] * 6]), score)
    assert abs(missing) < 1e-3 * max(1.0, float((ends[0] - ends[1]).abs()))
    heat = heat_maps(model, inputs, gradients)
    if "flow" in heat:
        torch.testing.assert_close(heat["flow"].sum((1, 2)).double(), moments["flow"], atol=1e-5, rtol=1e-4)
    if "rgb" in heat:
        assert heat["rgb"].shape == (6, 4, 4)  # twice the 2 x 2 cells of the last map


def test_explanations_see_what_the_model_answers() -> None:
    model, inputs = model_of("rgb"), inputs_of("rgb")
    features = imp.pooled(model, imp.feature_maps(model, inputs))
    expected = model(inputs, torch.tensor([6]))
    torch.testing.assert_close(model.head(features, torch.tensor([6])), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(imp.running_outputs(model, features)[-1:], expected, atol=1e-5, rtol=1e-4)


def test_a_bidirectional_model_answers_to_every_beginning() -> None:
    model, inputs = model_of(bidirectional=True), inputs_of("flow")
    running = imp.running_outputs(model, inputs)
    for end in (1, 4, 6):
        alone = model.head({"flow": inputs["flow"][:, :end]}, torch.tensor([end]))
        torch.testing.assert_close(running[end - 1 : end], alone)


def test_the_gradient_at_a_finer_map_is_the_one_of_the_whole_way() -> None:
    """Its heat is activation times gradient: compared with a finite difference of the features along one cell."""
    model, inputs = model_of("rgb"), inputs_of("rgb")
    encoder = model.encoders["rgb"]
    frames = inputs["rgb"][0]
    layer, call = finer_place(encoder, frames[:1])
    assert call == 0  # type: ignore[arg-type]
    direction = torch.randn(6, encoder.dim)  # type: ignore[arg-type]
    heat = heat_maps(model, inputs, {"rgb": direction[None]})["rgb"]

    def scaled(cell: tuple[int, int], by: float) -> Tensor:
        def hook(_: object, __: object, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, :, cell[0], cell[1]] *= by
            return changed

        handle = layer.register_forward_hook(hook)
        with torch.enable_grad():
            vectors = encoder.pool(encoder.feature_map(frames)).detach()  # type: ignore[operator]
        handle.remove()
        return (vectors * direction).sum(1)

    raw = torch.zeros(6, 4, 4)
    for y in range(4):
        for x in range(4):
            raw[:, y, x] = (scaled((y, x), 1.0005) - scaled((y, x), 0.9995)) / 0.001
    smooth = torch.nn.functional.avg_pool2d(raw[:, None], 3, 1, 1)[:, 0]
    torch.testing.assert_close(heat, smooth, atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v3_small", "efficientnet_lite0"])
def test_nothing_goes_around_the_place_where_the_heat_is_read(name: str) -> None:
    """In a ResNet the last map of twice the size lies inside a block, whose shortcut goes around it."""
    encoder = build_encoder(EncoderConfig(name=name, weights="none", frozen=True), load=False).eval()
    frames = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    place = finer_place(encoder, frames[:1])
    heat = heat_at(encoder, place, frames, torch.ones(2, encoder.dim))
    assert heat.shape == (2, 6, 6) and bool(heat.isfinite().all()) and bool(heat.any())


def test_hiding_finds_the_only_moment_that_a_model_reads() -> None:
    model, inputs = model_of(kind="none", pooling="last"), inputs_of("flow")
    found = imp.occlusion(model, inputs, imp.class_score(0))
    assert found[:-1].abs().max() < 1e-6 and found[-1].abs() > 1e-3
    blank = {"flow": torch.zeros_like(inputs["flow"])}
    lengths = torch.tensor([6])
    fall = imp.class_score(0)(model.head(inputs, lengths)) - imp.class_score(0)(model.head(blank, lengths))
    assert float(found[-1]) == pytest.approx(float(fall.detach()), rel=1e-5)


@pytest.mark.parametrize("kind", ["attention", "max", "last"])
def test_where_pooling_reads(kind: str) -> None:
    model, inputs = model_of(pooling=kind), inputs_of("flow")
    weights = imp.pooling_weights(model.branches["flow"], inputs["flow"])  # type: ignore[arg-type]
    if kind == "last":
        assert weights is None
    else:
        assert weights is not None and weights.shape == (6,) and float(weights.sum()) == pytest.approx(1)


def test_log_odds_do_not_change_when_a_number_is_added_to_all_logits() -> None:
    logits = torch.randn(3, 4)
    p = logits.softmax(-1)[:, 2]
    torch.testing.assert_close(imp.class_score(2)(logits), (p / (1 - p)).log())
    torch.testing.assert_close(imp.class_score(2)(logits + 5), imp.class_score(2)(logits))


def planted(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Flow grids (N, T, 2 * GRID * GRID) of noise with one cell that moves one of four ways for three moments."""
    x = 0.15 * torch.randn(count, STEPS, 2, GRID, GRID, generator=generator)
    labels = torch.randint(0, 4, (count,), generator=generator)
    starts = torch.randint(0, STEPS - 2, (count,), generator=generator)
    cells = torch.randint(0, GRID, (count, 2), generator=generator)
    ways = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) * 3.0
    for n in range(count):
        x[n, starts[n] : starts[n] + 3, :, cells[n, 0], cells[n, 1]] += ways[labels[n]]
    return x.flatten(2), labels, starts, cells


@pytest.fixture(scope="module")
def learned() -> tuple[Classifier, tuple[Tensor, Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    model = model_of(hidden=24, dropout=0.0, pooling="max").train()
    x, labels, _, _ = planted(512, generator)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(160):
        rows = torch.arange(64) + 64 * (step % 8)
        loss = torch.nn.functional.cross_entropy(model({"flow": x[rows]}, torch.full((64,), STEPS)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), planted(24, torch.Generator().manual_seed(9))


def test_planted_evidence_is_found_in_time_and_in_space(learned: tuple[Classifier, tuple[Tensor, ...]]) -> None:
    model, (x, labels, starts, cells) = learned
    found: dict[str, list[bool]] = {"right": [], "occlusion": [], "gradients": [], "time": [], "space": []}
    for n in range(len(x)):
        clip, score = {"flow": x[n : n + 1]}, imp.class_score(int(labels[n]))
        found["right"].append(int(model(clip, torch.tensor([STEPS])).argmax()) == int(labels[n]))
        if not found["right"][-1]:
            continue
        evidence = range(int(starts[n]), int(starts[n]) + 3)
        gradients = imp.mean_gradients(model, clip, score)
        moments, _ = imp.integrated_gradients(model, clip, gradients, score)
        heat = heat_maps(model, clip, gradients)["flow"].numpy()
        t, row, column = np.unravel_index(int(heat.argmax()), heat.shape)
        found["occlusion"].append(int(imp.occlusion(model, clip, score).argmax()) in evidence)
        found["gradients"].append(int(moments["flow"].argmax()) in evidence)
        found["time"].append(int(t) in evidence)
        found["space"].append([int(row), int(column)] == cells[n].tolist())
    shares = {name: float(np.mean(values)) for name, values in found.items()}
    assert shares["right"] >= 0.8, shares
    assert min(shares["occlusion"], shares["gradients"]) >= 0.9 and shares["space"] >= 0.8, shares


def test_explanations_change_when_the_weights_are_shuffled(learned: tuple[Classifier, tuple[Tensor, ...]]) -> None:
    model, (x, labels, _, _) = learned
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def both() -> list[np.ndarray]:
        rows = []
        for n in range(12):
            gradients = imp.mean_gradients(model, {"flow": x[n : n + 1]}, imp.class_score(int(labels[n])))
            rows.append((gradients["flow"][0] * x[n]).sum(1).numpy())
        return rows

    before = both()
    again = both()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))
    after = both()
    model.load_state_dict(state)
    alike: Callable[[list[np.ndarray]], float] = lambda rows: float(  # noqa: E731
        np.mean(
            [
                np.corrcoef(one.argsort().argsort(), other.argsort().argsort())[0, 1]
                for one, other in zip(before, rows, strict=True)
            ]
        )
    )
    assert alike(again) == pytest.approx(1.0)
    assert abs(alike(after)) < 0.5
