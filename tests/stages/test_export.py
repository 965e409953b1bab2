"""Exported folders: what is in them, that they give the checkpoint's numbers, and what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.cli import main
from pipeline.config import Config, FlowConfig, RecurrentConfig, VideoConfig, to_dict
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import ClipInputs
from pipeline.data.stream import stream_clips
from pipeline.errors import CheckpointError, ConfigError, DataError, ExportError
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import build_classifier
from pipeline.stages.classify import classify
from pipeline.stages.export import cached, run
from pipeline.stages.export.engine import CARD, OnnxEngine
from pipeline.stages.export.parity import Parity, measure
from pipeline.stages.export.predictor import load_onnx
from pipeline.stages.models import load_model
from pipeline.stages.predict import Predictor
from pipeline.stages.watch.engine import GraphSteps, steps_of
from pipeline.stages.watch.stepper import Reset, Stepper

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
runtime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")

FILES = ["encoder.onnx", "head.onnx", "step.onnx", "clip.onnx", "clip.pt2"]


@pytest.fixture(scope="module")
def said(example: Any, tiny_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command prints with --json, of an export of the example's model compared on its training clips."""
    folder = tmp_path_factory.mktemp("exported") / "export"
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        main(["export", str(example.folder), "--out", str(folder), "--json"])
    found: dict[str, Any] = json.loads(text.getvalue())  # one object, and none of the exporters' talk
    return found


@pytest.fixture(scope="module")
def folder(said: dict[str, Any]) -> Path:
    return Path(said["folder"])


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def clips(predictor: Predictor, tiny_clips: Path) -> list[dict[str, Any]]:
    """Inputs of two real clips of different lengths."""
    files = [str(path) for path in sorted(tiny_clips.rglob("*g0[12]_c0[12]*"))]
    read = [x.clip for x in stream_clips([ClipFile(path) for path in files], predictor.plan, 0) if x.clip is not None]
    longest, shortest = max(read, key=lambda x: x.length), min(read, key=lambda x: x.length)
    assert longest.length > shortest.length
    return [dict(longest.inputs), dict(shortest.inputs)]


def test_a_folder_holds_its_files_and_says_all_about_them(said: dict[str, Any], folder: Path, example: Any) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, CARD])
    card = json.loads((folder / CARD).read_text())
    assert list(card["files"]) == FILES and list(said["files"]) == FILES
    for name, entry in card["files"].items():
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert card["checkpoint"] == load_model(str(example.folder), "cpu").digest
    assert card["answer"]["classes"] == ["blue", "green", "red"]
    assert card["preprocessing"]["streams"]["rgb"]["normalisation"]["mean"] == [127.5] * 3
    assert [part["name"] for part in card["state"]] == ["rgb.0.h", "rgb.0.c"]
    assert {kinds.keys() >= {"random", "real"} for kinds in card["parity"]["differences"].values()} == {True}
    assert len(set(card["parity"]["lengths"]["real"])) > 1
    assert max(v for kinds in card["parity"]["differences"].values() for v in kinds.values()) <= 1e-4
    assert set(card["versions"]) >= {"torch", "onnx", "onnxruntime"}


def test_the_graphs_declare_what_export_json_says(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    for name in FILES[:-1]:
        graph = onnx.load(folder / name).graph
        for ports, values in (("inputs", graph.input), ("outputs", graph.output)):
            shapes = [
                [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
            ]
            assert [port["name"] for port in card["files"][name][ports]] == [value.name for value in values]
            assert [port["shape"] for port in card["files"][name][ports]] == shapes
    assert card["files"]["clip.onnx"]["inputs"][0]["shape"] == ["batch", "time", 3, 32, 32]


def test_no_file_tells_where_it_was_made_and_the_program_carries_the_weights_once(folder: Path) -> None:
    for name in FILES:
        data = (folder / name).read_bytes()
        assert b"site-packages" not in data and str(Path(run.__file__).parents[2]).encode() not in data, name
    assert (folder / "clip.pt2").stat().st_size < 1.5 * (folder / "clip.onnx").stat().st_size


def test_the_program_holds_no_pickle(folder: Path) -> None:
    import zipfile

    with zipfile.ZipFile(folder / "clip.pt2") as archive:
        for name in archive.namelist():
            data = archive.read(name)
            assert not data.startswith((b"\x80\x02", b"PK\x03\x04")), name
            if name.endswith(".json"):
                assert '"use_pickle": true' not in data.decode()


@pytest.mark.parametrize(("batch", "moments"), [(1, 1), (1, 40), (5, 7)])
def test_batch_and_length_are_free(folder: Path, predictor: Predictor, batch: int, moments: int) -> None:
    session = runtime.InferenceSession(str(folder / "clip.onnx"))
    rng = np.random.default_rng(batch)
    frames = rng.integers(0, 256, (batch, moments, 3, 32, 32), dtype=np.uint8)
    lengths = rng.integers(1, moments + 1, batch)
    found = session.run(None, {"rgb": frames, "lengths": lengths})[0]
    with torch.inference_mode():
        wanted = predictor.model({"rgb": torch.from_numpy(frames)}, torch.from_numpy(lengths))
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def test_the_engine_answers_as_the_checkpoint_does(folder: Path, predictor: Predictor, clips: Any) -> None:
    engine = OnnxEngine(folder)
    features = [engine.encode(clip) for clip in clips]
    for clip, of_clip, logits in zip(clips, features, engine.head(features), strict=True):
        own = predictor.from_features(of_clip)
        np.testing.assert_allclose(softmax(logits / predictor.temperature), own, atol=1e-5)
        state: Any = None
        for moment in range(len(clip["rgb"])):
            answer, state = engine.step({"rgb": clip["rgb"][moment : moment + 1]}, state)
        np.testing.assert_allclose(softmax(answer[0] / predictor.temperature), own, atol=1e-5)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(raised / raised.sum())


def test_classify_by_onnx_gives_the_rows_of_torch(folder: Path, predictor: Predictor, tiny_clips: Path) -> None:
    sources = [str(tiny_clips / "blue"), str(tiny_clips / "red")]
    own = classify(predictor, sources, workers=0).table
    found = classify(load_onnx(folder, "cpu"), sources, workers=0).table
    assert len(own) == len(found) and any(row["status"] != "ok" for row in own)
    for a, b in zip(own, found, strict=True):
        assert [a.get(key) for key in ("path", "status", "label")] == [
            b.get(key) for key in ("path", "status", "label")
        ]
        if a["status"] == "ok":
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)


def test_a_stream_by_onnx_is_that_of_torch(folder: Path, predictor: Predictor, clips: Any) -> None:
    by_onnx, state, own_state = load_onnx(folder, "cpu"), None, None
    for moment in clips[0]["rgb"]:
        own, own_state = predictor.step({"rgb": moment}, own_state)
        found, state = by_onnx.step({"rgb": moment}, state)
        np.testing.assert_allclose(found, own, atol=1e-5)


def test_a_checkpoint_is_exported_once_and_kept_in_the_cache(
    folder: Path, example: Any, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def export(predictor: Predictor, out: Path, **_: Any) -> None:
        shutil.copytree(folder, out, dirs_exist_ok=True)
        made.append(out)

    monkeypatch.setattr(cached, "export", export)
    first = load_onnx(example.folder, "cpu")
    assert first.digest == load_onnx(example.folder, "cpu").digest == load_model(str(example.folder), "cpu").digest
    assert len(made) == 1 and own_cache in made[0].parents
    (made[0] / "head.onnx").write_bytes(b"cut off")
    load_onnx(example.folder, "cpu")
    assert len(made) == 2
    shutil.rmtree(cached.exports_folder())


def test_a_damaged_graph_is_named(copy: Path, clips: Any) -> None:
    data = bytearray((copy / "encoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "encoder.onnx").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"encoder\.onnx is damaged"):
        OnnxEngine(copy).encode(clips[0])
    (copy / CARD).write_text("{}")
    with pytest.raises(CheckpointError, match=r"export\.json is damaged"):
        OnnxEngine(copy)


def test_a_model_that_is_not_the_exported_one_fails_the_comparison(folder: Path, predictor: Predictor) -> None:
    state = {name: x.clone() for name, x in predictor.model.state_dict().items()}
    config = Config(**{key: getattr(example_config(predictor), key) for key in ("video", "encoder", "recurrent")})
    other = build_classifier(config, 3, load=False).eval()
    state["branches.rgb.output.bias"][0] += 2e-4
    other.load_state_dict(state)
    found = measure(other, folder, [], 32, 1e-4, lambda _: None)
    assert found.differences["encoder.onnx"]["random"] < 1e-5
    assert found.differences["clip.pt2"]["random"] == pytest.approx(2e-4, rel=0.1)
    with pytest.raises(ExportError, match=r"head\.onnx differs from the checkpoint by 2\.0e-04 on random clips"):
        found.check()


def example_config(predictor: Predictor) -> Config:
    from pipeline.model.checkpoint import config_of

    return config_of(predictor.card)


def test_not_a_number_is_no_parity() -> None:
    found = Parity()
    found.add("step.onnx", "real", [[np.nan]], [[0.5]], 1.0, 1e-4)
    with pytest.raises(ExportError, match=r"step\.onnx"):
        found.check()


def test_where_parity_fails_nothing_is_left_and_the_former_export_stays(
    copy: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def far(*_: Any) -> Parity:
        found = Parity()
        found.add("clip.onnx", "real", [1.0], [2.0], 1.0, 1e-4)
        return found

    monkeypatch.setattr(run, "measure", far)
    monkeypatch.setattr(run, "_jobs", lambda *_: ({}, {}))
    before = (copy / CARD).read_bytes()
    with pytest.raises(ExportError, match=r"clip\.onnx differs from the checkpoint by 1\.0e\+00"):
        run.export(predictor, copy, clips=[])
    assert (copy / CARD).read_bytes() == before and [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_folder_with_other_things_is_not_replaced(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match=r"holds thesis\.tex"):
        run.export(predictor, tmp_path)
    with pytest.raises(ExportError, match="is a file"):
        run.export(predictor, tmp_path / "thesis.tex")


def test_clips_that_cannot_be_read_are_an_error_and_missing_ones_too(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="none of the 1 clips"):
        run.export(predictor, tmp_path / "out", [tmp_path / "bad.mp4"])
    assert not (tmp_path / "out").exists()


def test_an_exporter_that_fails_is_one_line() -> None:
    def fail() -> None:
        raise RuntimeError("Unsupported operator\nwith pages of reasons")

    with pytest.raises(ExportError, match=r"^step\.onnx: PyTorch .* cannot write this model \(Unsupported operator\)"):
        run._made("step.onnx", fail)


@pytest.fixture
def without_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.mark.usefixtures("without_runtime")
def test_without_onnxruntime_the_remedy_is_named(
    folder: Path, example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["classify", str(folder), str(tmp_path), "--engine", "onnx"],
        ["classify", str(example.folder), str(tmp_path), "--engine", "onnx"],
        ["export", str(example.folder), "--out", str(tmp_path / "out")],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        message = capsys.readouterr().err
        assert "onnxruntime is not installed; pip install 'video-lstm[onnx]'" in message
        assert message.count("\n") == 1


def test_torch_says_what_an_export_is_for(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="--engine onnx"):
        load_model(folder, "cpu")


def test_a_device_that_onnxruntime_does_not_have_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'tpu'"):
        OnnxEngine(folder, device="tpu")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        with pytest.raises(ConfigError, match="onnxruntime-gpu"):
            OnnxEngine(folder, device="cuda:0")


def small(**recurrent: Any) -> Predictor:
    torch.manual_seed(0)
    config = Config(
        task="frame_label",
        video=VideoConfig(streams="flow", size=32),
        recurrent=RecurrentConfig(hidden=6, layers=1, **recurrent),
        flow=FlowConfig(grid=3),
    )
    model = build_classifier(config, 2, load=False)
    return Predictor(model, Card(to_dict(config), ["no", "yes"]), torch.device("cpu"), "0" * 64)


def test_grids_and_answers_per_moment_without_encoder(tmp_path: Path) -> None:
    result = run.export(small(kind="peephole_lstm"), tmp_path / "out", clips=[], engine_alone=True)
    assert list(result.files) == ["head.onnx", "step.onnx"] and "encoder.onnx" in result.left_out
    assert result.parity.worst() <= 1e-5
    assert OnnxEngine(tmp_path / "out").per_moment


def test_a_model_that_reads_both_ways_has_no_step(copy: Path, clips: Any) -> None:
    jobs, left_out = run._jobs(small(kind="lstm", bidirectional=True), False)
    assert list(jobs) == ["head.onnx", "clip"] and "both directions" in left_out["step.onnx"]
    card = json.loads((copy / CARD).read_text())
    del card["files"]["step.onnx"]
    (copy / CARD).write_text(json.dumps(card | {"left_out": left_out}))
    with pytest.raises(ConfigError, match="both directions"):
        OnnxEngine(copy).step({"rgb": clips[0]["rgb"][:1]})


def test_a_watched_stream_of_an_export_gives_the_answer_of_the_clip(
    folder: Path, predictor: Predictor, clips: list[dict[str, Any]]
) -> None:
    """Two sources in one call, one of them ends earlier; two states of each, as a window has them."""
    steps = steps_of(load_onnx(str(folder), "cpu"))
    assert isinstance(steps, GraphSteps)
    stepper = Stepper(steps, 2, Reset("window", 4), gates=True)
    for place in range(len(clips[0]["rgb"])):
        moments = {n: {"rgb": clip["rgb"][place]} for n, clip in enumerate(clips) if place < len(clip["rgb"])}
        for number, answer in stepper.step(moments).items():
            part = clips[number]["rgb"][place + 1 - answer.age : place + 1]
            expected = predictor.answer(ClipInputs({"rgb": part}, np.arange(len(part)) / 10))
            np.testing.assert_allclose(answer.values, expected, atol=1e-4)
            assert answer.gates == {}
