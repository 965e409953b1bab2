from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, VideoConfig
from pipeline.errors import CheckpointError
from pipeline.model import checkpoint
from pipeline.report.description import description_text, short
from pipeline.stages.describe import ASSUMED_CLASSES, Described, describe_config, describe_model


def names(described: Described) -> dict[str, list[str]]:
    return {block.name: [step.name for step in block.steps] for block in described.blocks}


def test_a_configuration_is_described_from_file_to_label(make_config: Any, tiny_clips: Path) -> None:
    described = describe_config(make_config(recurrent__kind="gru"))
    assert names(described) == {
        "rgb": [
            "decode 4 frames", "stretch to 32 px", "normalise", "encoder layers.0", "encoder layers.3",
            "encoder layers.6", "encoder layers.9", "mean over all pixels", "layer norm", "gru layer0", "last pooling",
            "output",
        ]
    }  # fmt: skip
    assert described.outputs == 3 and described.outputs_from == f"from {tiny_clips}"
    assert described.blocks[0].steps[0].shape == (4, "H", "W", 3)
    assert described.blocks[0].steps[1].activations == 4 * 3 * 32 * 32
    assert next(matrix.name for matrix in described.blocks[0].matrices) == "layer0.net.weight_ih_l0"
    steps = described.blocks[0].steps
    assert described.parameters == sum(step.parameters for step in steps) == described.trained
    assert described.multiply_adds == sum(step.multiply_adds or 0 for step in steps)


def test_two_streams_are_two_blocks_and_a_fusion(make_config: Any) -> None:
    described = describe_config(make_config(video__streams="rgb+flow", flow__grid=4))
    assert list(names(described)) == ["rgb", "flow", "fusion"]
    assert names(described)["flow"] == [
        "decode 4 frame pairs", "DIS flow at 160 px", "mean over 4 x 4 cells", "standardise", "lstm layer0",
        "last pooling", "output",
    ]  # fmt: skip
    change = describe_config(make_config(video__streams="difference", difference__grid=4))
    assert names(change)["difference"][:2] == [
        f"decode {make_config().video.frames} frame pairs", "brighter and darker at 160 px, mean over 4 x 4 cells",
    ]  # fmt: skip
    image = describe_config(make_config(video__streams="flow", flow__form="image"))
    assert names(image)["flow"][1:4] == ["DIS flow at 160 px", "flow as an image", "normalise"]


def test_where_the_data_is_not_there_the_classes_are_assumed_or_given(make_config: Any) -> None:
    away = make_config(data__root="/nowhere/clips")
    described = describe_config(away)
    assert described.outputs == ASSUMED_CLASSES and "data.root /nowhere/clips is not there" in described.outputs_from
    assert "data.root is not set" in describe_config(make_config(data__root=None)).outputs_from
    assert describe_config(away, 9).blocks[0].steps[-1].shape == (9,)


def test_pretrained_weights_are_not_needed(make_config: Any) -> None:
    described = describe_config(make_config(encoder__weights="missing.safetensors"))
    assert described.parameters > 0


@pytest.mark.parametrize(
    ("task", "shape"),
    [("label", (3,)), ("frame_label", (4, 3)), ("regression", (1,)), ("frame_regression", (4, 1))],
)
def test_every_task_is_described(make_config: Any, task: str, shape: tuple[int, ...]) -> None:
    described = describe_config(make_config(task=task), 3)
    assert described.blocks[0].steps[-1].shape == shape and described.task == task
    assert ("1 number" in description_text(asdict(described))) == task.endswith("regression")


def test_a_trained_model_is_described_as_it_is(example: Any, tmp_path: Path) -> None:
    described = describe_model(str(example.folder))
    model, _ = checkpoint.load(example.folder / "best")
    assert described.outputs == 3 and described.outputs_from == "of the model" and described.name == "tiny"
    assert described.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert described.weights == sum(value.nbytes for value in model.state_dict().values())
    assert describe_model(f"runs:/{example.result.run_id}", example.uri) == described
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        describe_model(str(tmp_path / "nothing"))


@pytest.mark.parametrize("width", [80, 120])
def test_the_text_fits_the_terminal(width: int) -> None:
    config = Config(video=VideoConfig(streams="rgb+flow", size=224, frames=24))
    lines = description_text(asdict(describe_config(config, 101)), width).splitlines()
    assert max(len(line) for line in lines) <= width
    text = "\n".join(lines)
    assert text.startswith("video-lstm: label, 101 classes (from --classes); for one clip of 24 moments\n")
    assert "  encoder blocks.15 " in text and "Weights of the recurrent layers of flow:" in text
    assert "layer0.net.weight_hh_l0 (512, 128)" in text


def test_numbers_are_short() -> None:
    assert [short(x) for x in (0, 7, 999, 1000, 1690, 999_600, 12_345_678, 3_200_000_000)] == [
        "0", "7", "999", "1 k", "1.69 k", "1 M", "12.3 M", "3.2 G",
    ]  # fmt: skip
    assert short(8, "B") == "8 B" and short(2_408_448, "B") == "2.41 MB" and short(None) == ""
