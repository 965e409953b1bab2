"""B2: lengths that count the frames of the file while every second one was read (HHTseng)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import Config
from pipeline.data.batches import ClipLoader
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.stream import decoding_pool
from pipeline.model.classifier import build_classifier
from pipeline.video.reader import probe
from pipeline.video.writer import write_video

FRAMES = (1, 3, 8, 20)
SAMPLING = {
    "uniform": ({}, [1, 3, 6, 6]),
    # 10 frames per second looked at 5 times per second: every second frame of 0.0, 0.1, ... seconds
    "rate": ({"video__sampling": "rate", "video__fps": 5.0}, [1, 2, 4, 10]),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[ClipFile]:
    """Clips of bright frames, so that padding (zeros) cannot be taken for one."""
    folder = tmp_path_factory.mktemp("lengths")
    rng = np.random.default_rng(0)
    for count in FRAMES:
        write_video(str(folder / f"{count}.mkv"), rng.integers(100, 256, (count, 32, 32, 3), dtype=np.uint8), 10.0)
    paths = [folder / f"{count}.mkv" for count in FRAMES]
    return [ClipFile(str(path), label, probe(str(path)).times) for label, path in enumerate(paths)]


def loader(files: list[ClipFile], config: Config) -> ClipLoader:
    """All clips in one batch, decoded in this process."""
    plan = Plan.of(config)
    return ClipLoader(files, plan, len(files), decoding_pool(plan, 0))


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("streams", ["rgb", "rgb+difference+flow"])
def test_lengths_count_the_frames_that_were_read(
    files: list[ClipFile], make_config: Any, sampling: str, streams: str
) -> None:
    changes, expected = SAMPLING[sampling]
    config: Config = make_config(video__frames=6, video__streams=streams, flow__size=32, **changes)
    (batch,) = loader(files, config).batches([(i, None) for i in range(len(files))])
    assert batch.lengths.tolist() == expected
    for row, length in enumerate(expected):
        frames = batch.inputs["rgb"][row]
        assert (frames[:length].float().mean(dim=(1, 2, 3)) > 50).all() and (frames[length:] == 0).all()
        distinct = {frame.numpy().tobytes() for frame in frames[:length]}
        assert len(distinct) == length
    assert {x.shape[1] for x in batch.inputs.values()} == {max(expected)}


def test_the_head_is_told_these_lengths(files: list[ClipFile], make_config: Any) -> None:
    """In a batch each clip's logits are those it has alone: what lies behind its length is never read."""
    config: Config = make_config(video__frames=6)
    torch.manual_seed(0)
    model = build_classifier(config, 3).eval()
    (batch,) = loader(files, config).batches([(i, None) for i in range(len(files))])
    with torch.inference_mode():
        together = model.head(model.encode(batch.inputs, batch.lengths), batch.lengths)
        for row, length in enumerate(batch.lengths.tolist()):
            alone = {name: x[row : row + 1, :length] for name, x in batch.inputs.items()}
            lengths = torch.tensor([length])
            assert torch.allclose(model.head(model.encode(alone, lengths), lengths)[0], together[row], atol=1e-5)
