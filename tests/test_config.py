"""Configuration files and overrides: what is read, and what is said about what cannot be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.sweep import read_sweep
from pipeline.config import Config, DataConfig, VideoConfig, flatten, to_dict
from pipeline.errors import ConfigError
from pipeline.options import config_parser, load_config
from pipeline.stages.sweep.space import check_fit, read_space

ROOT = Path(__file__).resolve().parents[1]
SWEEP = ROOT / "configs/sweep.yaml"
CONFIGS = sorted(set((ROOT / "configs").glob("*.yaml")) - {SWEEP})


def written(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def complaint(*arguments: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(overrides=list(arguments))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_anything_the_defaults_are_read() -> None:
    assert load_config() == Config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_in_configs_is_valid_says_what_it_is_for_and_changes_something(path: Path) -> None:
    config = load_config(str(path))
    assert config != Config(name=config.name) and config.name.replace("-", "_") == path.stem
    assert path.read_text().startswith("# ")


def test_the_sweep_in_configs_is_valid() -> None:
    _, config = read_sweep([str(SWEEP)])
    assert config.name == "sweep" and len(read_space(config.space)) >= 3
    check_fit(config.base, read_space(config.space))


def test_there_is_a_configuration_for_the_demo_and_for_a_pretrained_encoder() -> None:
    configs = {path.stem: load_config(str(path)) for path in CONFIGS}
    assert configs["demo"].encoder.weights == "none" and not configs["demo"].encoder.frozen
    assert configs["transfer"].encoder.weights == "packaged" and configs["transfer"].encoder.frozen
    assert {"rgb", "difference", "flow", "difference+flow", "rgb+flow"} == {
        config.video.streams for config in configs.values()
    }


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = load_config(overrides=["--video.size", "64", "--training.learning_rate", "1e-4", "--data.root", "a b"])
    assert load_config(written(tmp_path, yaml.safe_dump(to_dict(config)))) == config
    assert json.loads(json.dumps(to_dict(config))) == to_dict(config)
    plain = {type(value) for value in flatten(to_dict(config)).values()}
    assert plain <= {int, float, str, bool, type(None)}


def test_a_list_is_one_flat_option_that_the_command_line_takes(tmp_path: Path) -> None:
    pairs = [["swipe left", "рука: right"], ["a", "b"]]
    config = load_config(written(tmp_path, yaml.safe_dump({"augmentation": {"flip_labels": pairs}})))
    text = flatten(to_dict(config))["augmentation.flip_labels"]
    assert load_config(overrides=["--augmentation.flip_labels", text]).augmentation.flip_labels == pairs
    assert "рука" in text


def test_later_files_and_options_win(tmp_path: Path) -> None:
    first = written(tmp_path, "video: {size: 64, frames: 8}\nseed: 3\n")
    (tmp_path / "second.yaml").write_text("video: {size: 96}\n")
    config = load_config(first, str(tmp_path / "second.yaml"), overrides=["--seed=4"])
    assert (config.video.size, config.video.frames, config.seed) == (96, 8, 4)


def test_every_option_has_a_meaning_and_the_same_name_everywhere() -> None:
    names = set(config_parser("x", "").option_names())
    assert set(flatten(to_dict(Config()))) < names
    text = config_parser("x", "").format_help()
    for section in dataclasses.fields(Config):
        assert f"--{section.name}" in text


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("--training.epoch=3", "there is no option 'training.epoch'; did you mean 'training.epochs'?"),
        ("--vidoe.size=3", "did you mean 'video.size'?"),
        ("--hidden=3", "did you mean 'recurrent.hidden'?"),
        ("--zzzzzz=3", "--help lists all"),
    ],
)
def test_a_misspelt_option_names_its_neighbour(wrong: str, hint: str) -> None:
    assert hint in complaint(wrong)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("training: {epoch: 3}", ["training.epoch", "did you mean 'training.epochs'?"]),
        ("trainig: {epochs: 3}", ["trainig", "did you mean 'training"]),
        ("seeed: 3", ["seeed", "did you mean 'seed'?"]),
        ("video: 3", ["video"]),
        ("video: {size: large}", ["video.size", "whole number"]),
        ("training: {epochs: 2.5}", ["training.epochs", "whole number"]),
        ("encoder: {frozen: perhaps}", ["encoder.frozen", "perhaps"]),
        ("- just\n- a list", ["no options"]),
        ("video: [unclosed", ["YAML"]),
    ],
)
def test_a_file_that_does_not_fit_is_a_complaint_of_one_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = complaint("--config", written(tmp_path, text))
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ("--training.epochs=0", ["training.epochs", "above 0"]),
        ("--training.epochs=three", ["training.epochs", "whole number"]),
        ("--data.val=1", ["data.val", "below 1"]),
        ("--augmentation.flip=1.5", ["augmentation.flip", "0 to 1"]),
        ("--augmentation.crop=0", ["augmentation.crop", "above 0"]),
        ("--training.learning_rate=-1", ["training.learning_rate", "above 0"]),
        ("--seed=-1", ["seed", "0 or more"]),
        ("--recurrent.kind=transformer", ["recurrent.kind", "lstm", "gru"]),
        ("--video.fit=squash", ["video.fit", "stretch", "crop", "pad"]),
        ("--video.streams=rgb+depth", ["video.streams", "rgb+flow"]),
        ("--data.folds=1", ["data.folds is 1", "2 or more"]),
        ("--data.folds=most", ["data.folds", "a whole number, 0 or more, or leave-one-group-out"]),
        ("--data.fold=2", ["data.fold is 2", "data.folds is 0"]),
        ("--difference.grid=200", ["difference.grid", "at most size"]),
        ("--video.streams=rgb+rgb", ["video.streams", "rgb+rgb"]),
        ("--config=nowhere.yaml", ["nowhere.yaml"]),
    ],
)
def test_a_wrong_type_range_or_choice_is_a_complaint_of_one_line(wrong: str, parts: list[str]) -> None:
    message = complaint(wrong)
    assert all(part in message for part in parts), message


def test_values_that_do_not_fit_together_are_refused() -> None:
    assert "nothing is left for training" in complaint("--data.val=0.5", "--data.test=0.5")
    with pytest.raises(ConfigError, match="nothing is left"):
        DataConfig(val=0.9, test=0.1)
    with pytest.raises(ConfigError, match=r"video\.streams"):
        VideoConfig(streams="")


def test_streams_have_a_fixed_order() -> None:
    assert (
        VideoConfig(streams="flow+rgb").stream_names == VideoConfig(streams="rgb+flow").stream_names == ("rgb", "flow")
    )
    every = load_config(overrides=["--video.streams=flow+difference+rgb", "--difference.form=image"])
    assert every.video.stream_names == ("rgb", "difference", "flow") and every.image_streams == ("rgb", "difference")


def test_no_file_can_name_code_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    harmful: Any = "video: !!python/object/apply:os.system ['touch made']\n"
    complaint("--config", written(tmp_path, harmful))
    assert not (tmp_path / "made").exists()
