"""The checkpoint: what goes in comes out, a damaged one is refused, a killed save loses nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config import Config, EncoderConfig, RecurrentConfig, VideoConfig, to_dict
from pipeline.errors import CheckpointError
from pipeline.model import checkpoint
from pipeline.model.checkpoint import CARD, TENSORS, Card, config_from_dict, config_of, digest, load, save
from pipeline.model.classifier import Classifier, build_classifier

CLASSES = ["zebra", "ant", "Ärger", "10", "9"]


def config() -> Config:
    return Config(
        name="123",
        video=VideoConfig(streams="rgb+flow", size=32),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False, grid=2),
        recurrent=RecurrentConfig(hidden=6, pooling="attention", projection=5),
    )


def model(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return build_classifier(config(), len(CLASSES))


def card() -> Card:
    return Card(
        config=to_dict(config()),
        classes=CLASSES,
        split={"digest": "ab", "train": ["1", "2"], "val": ["3"], "test": []},
        metrics={"top1": 0.5, "ece": float("nan")},
        versions={"torch": str(torch.__version__)},
        extra={"epoch": 3},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "best", model().state_dict(), card())
    return tmp_path / "best"


def test_round_trip_is_bit_equal(tmp_path: Path) -> None:
    trained = model().train()
    inputs = {
        "rgb": torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8),
        "flow": torch.randn(2, 4, 128),
    }
    lengths = torch.tensor([4, 2])
    trained(inputs, lengths)  # moves the batch-norm statistics off their start
    trained.fit_standardisation("flow", torch.randn(128), torch.rand(128) + 0.5)
    save(tmp_path / "best", trained.state_dict(), card())
    loaded, found = load(tmp_path / "best")
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(inputs, lengths), trained.eval()(inputs, lengths))
    assert config_of(found) == config()
    assert found == dataclasses.replace(card(), metrics={"top1": 0.5, "ece": None})
    assert sorted(item.name for item in (tmp_path / "best").iterdir()) == [CARD, TENSORS]
    assert [item.name for item in tmp_path.iterdir()] == ["best"]


def test_a_torchvision_encoder_comes_back_without_its_weights_file(tmp_path: Path) -> None:
    plan = config()
    plan.encoder = EncoderConfig(name="squeezenet1_1", weights="none", frozen=True)
    plan.video = VideoConfig(streams="rgb", size=64)
    saved = build_classifier(plan, 2).eval()
    plan.encoder.weights = "gone.safetensors"
    save(tmp_path / "m", saved.state_dict(), Card(config=to_dict(plan), classes=["a", "b"]))
    loaded, _ = load(tmp_path / "m")
    frames = {"rgb": torch.randint(0, 256, (1, 2, 3, 64, 64), dtype=torch.uint8)}
    with torch.no_grad():
        assert torch.equal(loaded(frames, torch.tensor([2])), saved(frames, torch.tensor([2])))


def test_class_names_keep_their_order(folder: Path) -> None:
    assert load(folder)[1].classes == CLASSES


def test_loading_does_not_disturb_the_seed(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load(folder)
    assert torch.equal(torch.rand(1), expected)


def test_digest_names_the_model(folder: Path, tmp_path: Path) -> None:
    first = digest(folder)
    save(tmp_path / "same", model().state_dict(), card())
    save(tmp_path / "other", model(seed=1).state_dict(), card())
    save(tmp_path / "relabelled", model().state_dict(), dataclasses.replace(card(), classes=CLASSES[::-1]))
    assert len(first) == 64
    assert digest(tmp_path / "same") == first
    assert len({first, digest(tmp_path / "other"), digest(tmp_path / "relabelled")}) == 3


def change_card(folder: Path, **changes: object) -> None:
    content = json.loads((folder / CARD).read_text(encoding="utf-8"))
    (folder / CARD).write_text(json.dumps({**content, **changes}), encoding="utf-8")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / TENSORS)
    tensors.pop("branches.flow.output.bias")
    save_file(tensors, folder / TENSORS)


def add_tensor(folder: Path) -> None:
    save_file({**load_file(folder / TENSORS), "zzz": torch.zeros(1)}, folder / TENSORS)


def resize(folder: Path) -> None:
    changed = to_dict(config())
    changed["recurrent"]["hidden"] = 7
    change_card(folder, config=changed)


def misspell(folder: Path) -> None:
    changed = to_dict(config())
    changed["video"]["sizee"] = 7
    change_card(folder, config=changed)


def unknown_encoder(folder: Path) -> None:
    changed = to_dict(config())
    changed["encoder"]["name"] = "resnet81"
    change_card(folder, config=changed)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such checkpoint folder"),
        (lambda folder: (folder / CARD).unlink(), r"model\.json is missing"),
        (lambda folder: (folder / TENSORS).unlink(), r"model\.safetensors is missing"),
        (lambda folder: truncate(folder / TENSORS), r"model\.safetensors is damaged"),
        (lambda folder: (folder / TENSORS).write_bytes(b""), r"model\.safetensors is damaged"),
        (lambda folder: truncate(folder / CARD), r"model\.json is damaged"),
        (lambda folder: (folder / CARD).write_bytes(b"\xff\xfe\x00garbage"), r"model\.json is damaged"),
        (lambda folder: (folder / CARD).write_text("[1, 2]"), r"model\.json is damaged"),
        (lambda folder: change_card(folder, format=3), "format 3; this version reads format 2"),
        (lambda folder: change_card(folder, classes=[]), "'classes' must be a list of names"),
        (lambda folder: change_card(folder, classes=None), "'classes' is missing"),
        (lambda folder: change_card(folder, config=None), "'config' is missing"),
        (drop_tensor, r"has no 'branches\.flow\.output\.bias'"),
        (add_tensor, "'zzz' is not part of the model"),
        (resize, "does not fit its card"),
        (misspell, "sizee"),
        (unknown_encoder, "resnet18"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_class_list_must_fit_the_weights(folder: Path) -> None:
    change_card(folder, classes=CLASSES[:-1])
    with pytest.raises(CheckpointError, match="does not fit its card"):
        load(folder)


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for call in (lambda: load(tmp_path / "file"), lambda: save(tmp_path / "file", model().state_dict(), card())):
        with pytest.raises(CheckpointError, match="is a file"):
            call()


def test_replacing_takes_the_new_and_leaves_nothing_behind(folder: Path) -> None:
    before = digest(folder)
    save(folder, model(seed=1).state_dict(), card())
    assert digest(folder) != before
    assert [item.name for item in folder.parent.iterdir()] == ["best"]


def test_a_folder_with_other_things_is_not_replaced(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds notes\.txt"):
        save(folder, model().state_dict(), card())
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(load(folder)[1].classes) == 5


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


STEPS = [
    "before writing",
    "between the files",
    "before the first rename",
    "between the renames",
    "before the clean-up",
]


@pytest.mark.parametrize("moment", STEPS)
def test_there_is_a_whole_checkpoint_wherever_a_save_is_killed(
    folder: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = digest(folder)
    real_rename, real_write = Path.rename, Path.write_text
    renames: list[Path] = []

    def rename(self: Path, target: Path) -> Path:
        if (moment, len(renames)) in (("before the first rename", 0), ("between the renames", 1)):
            raise Killed
        renames.append(target)
        return real_rename(self, target)

    def rmtree(path: Path, ignore_errors: bool = False) -> None:
        if moment == "before the clean-up" and len(renames) == 2:
            raise Killed

    def write_text(self: Path, text: str, encoding: str) -> int:
        if moment == "between the files":
            raise Killed
        return real_write(self, text, encoding=encoding)

    def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if moment == "before writing":
            raise Killed
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(Path, "write_text", write_text)
        patch.setattr(shutil, "rmtree", rmtree)
        patch.setattr(checkpoint, "save_file", save_tensors)
        with pytest.raises(Killed):
            save(folder, model(seed=1).state_dict(), card())
    found, _ = load(folder)  # the old one or the new one, whole
    assert found.state_dict().keys() == model().state_dict().keys()
    assert (digest(folder) == old) == (moment != "before the clean-up")
    save(folder, model(seed=2).state_dict(), card())  # and the next save finds its way and cleans up
    assert digest(folder) != old
    assert [item.name for item in folder.parent.iterdir()] == ["best"]


def test_config_round_trip_through_json_is_exact() -> None:
    plan = config()
    plan.data.root = "null"
    plan.tracking.uri = "1e3"
    assert config_from_dict(json.loads(json.dumps(to_dict(plan)))) == plan
    assert config_from_dict({}) == Config()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": {}}, "videos"),
        ({"video": {"sizee": 3}}, "sizee"),
        ({"video": {"size": -3}}, "video.size"),
        ({"video": {"streams": "sound"}}, "choose rgb"),
        ({"video": 3}, "not a section"),
        ({"seed": 1.5}, "seed"),
        ({"recurrent": {"kind": "gruu"}}, "recurrent.kind"),
    ],
)
def test_config_that_does_not_fit(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        config_from_dict({**to_dict(config()), **change})
