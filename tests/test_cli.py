"""The installed command: exit codes, stdout and stderr, the documented JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import cli
from pipeline.cli import files
from pipeline.config import Config, DataConfig, flatten, to_dict
from pipeline.errors import UserError
from pipeline.tracking.store import connect

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "torch",
    "torchvision",
    "mlflow",
    "cv2",
    "numpy",
    "pandas",
    "sklearn",
    "matplotlib",
    "albumentations",
    "optuna",
)
METRICS = {"top1", "top1_low", "top1_high", "macro_f1", "coverage", "n"}

Done = subprocess.CompletedProcess[str]
Call = Callable[..., Done]


@pytest.fixture(scope="module")
def call(command: str, tmp_path_factory: pytest.TempPathFactory) -> Call:
    folder = tmp_path_factory.mktemp("cwd")

    def run(*arguments: str, cwd: Path = folder) -> Done:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        return subprocess.run(
            [command, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=200
        )

    return run


def result(done: Done) -> dict[str, Any]:
    """The one JSON object on stdout."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and done.stdout.endswith("\n")
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def one_line_error(done: Done) -> str:
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("video-lstm: error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_help_answers_in_under_a_second_and_lists_every_command(call: Call) -> None:
    call("--version")  # the file cache of a fresh machine is not what is measured
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = call("--help")
        times.append(time.perf_counter() - started)
    assert min(times) < 1.0
    assert done.returncode == 0 and done.stderr == ""
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)


def test_help_and_complaints_import_nothing_heavy() -> None:
    script = (
        "import sys\nfrom pipeline.cli import main\n"
        "for arguments in (['--help'], ['train', '--help'], ['classify', '--help'], ['train', '--seeed', '3']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_package_loads_nothing_heavy_and_shows_its_names() -> None:
    script = (
        "import sys, pipeline\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], dir(pipeline), pipeline.Config().name)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ['Config'") and done.stdout.endswith("video-lstm\n")


def options_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_help_of_train_lists_every_option_with_meaning_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(options_of("train", capsys).split())
    for name, value in flatten(to_dict(Config())).items():
        place = text.index(f"--{name} ")
        default = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        rest = text[place : place + 700].lower()
        assert f"default: {default}" in rest, name
    for option in ("--out", "--fresh", "--resume", "--json", "--config"):
        assert f"{option} " in text


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("demo", ["DIR", "--groups", "--task", "--seed", "--json"]),
        ("doctor", ["PATH", "--json"]),
        ("ingest", ["DATA", "--out", "--json", *(f"--data.{name}" for name in vars(DataConfig()) if name != "root")]),
        (
            "evaluate",
            [
                "MODEL",
                "DATA",
                "--split",
                "--out",
                "--workers",
                "--device",
                "--uri",
                "--json",
                "--precision",
                "--views",
                "--mirror",
                "--time",
                "--robustness",
                "--track",
            ],
        ),
        ("classify", ["MODEL", "SOURCE", "--out", "--top_k", "--workers", "--device", "--uri", "--json"]),
        ("extract", ["--out", "--json", "--encoder.name", "--video.size"]),
        ("sweep", ["--base.data.root", "--space", "--trials", "--sampler", "--out", "--fresh", "--register", "--json"]),
        ("cache", ["--clear", "--all", "--limit", "--json"]),
        ("sync", ["FOLDER", "--uri", "--json"]),
        ("ui", ["--uri", "--host", "--port"]),
    ],
)
def test_the_help_of_a_command_lists_its_options(
    command: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = options_of(command, capsys)
    assert all(f"\n  {option} " in text for option in options), text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["no command 'trian'", "did you mean 'train'?"]),
        (["train", "--training.epoch", "3"], ["training.epoch", "did you mean 'training.epochs'?"]),
        (["train", "--training.epochs", "none"], ["training.epochs", "a whole number above 0"]),
        (["train", "--recurrent.kind", "lstn"], ["recurrent.kind", "lstm"]),
        (["train", "nowhere.yaml"], ["nowhere.yaml"]),
        (["sweep", "--trails", "3"], ["trails", "did you mean 'trials'?"]),
        (["sweep", "--trials", "3"], ["space is empty"]),
        (["ingest"], ["DATA"]),
        (["demo", "folder", "--groups", "0"], ["groups", "above 0"]),
        (["classify", "model"], ["SOURCE"]),
        (["evaluate", "model", "--split", "tset"], ["split", "tset", "test"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    written = capsys.readouterr()
    assert end.value.code == 2 and written.out == ""
    assert written.err.count("\n") == 1 and written.err.startswith("video-lstm: error: ")
    assert all(part in written.err for part in parts), written.err


def test_a_mistake_through_the_installed_command_and_its_traceback_on_request(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("trainig:\n  epochs: 3\n")
    assert "did you mean 'training" in one_line_error(call("train", str(tmp_path / "bad.yaml")))
    for arguments in (["--debug", "train", "--seed", "x"], ["train", "--seed", "x", "--debug"]):
        done = call(*arguments)
        assert done.returncode != 0 and "Traceback" in done.stderr and "ConfigError" in done.stderr


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: list[str]) -> None:
        raise RuntimeError("a bug")

    def refused(_: list[str]) -> None:
        raise UserError("two\nlines   of text")

    monkeypatch.setattr(files, "demo_command", broken)
    monkeypatch.setattr(files, "cache_command", refused)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["demo"])
    with pytest.raises(UserError):
        cli.main(["cache", "--debug"])


def test_models_and_inputs_that_do_not_exist(
    example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_clips: Path
) -> None:
    bad = next(tiny_clips.rglob("*c09.mp4"))
    cases = [
        (["evaluate", str(tmp_path / "nowhere")], "no such checkpoint"),
        (["classify", str(example.folder), str(tmp_path / "gone.mp4")], "no such file or folder"),
        (["classify", str(example.folder), str(bad)], "none of the 1 files could be classified"),
        (["ingest", str(tmp_path)], "no class folders"),
        (["doctor", str(tmp_path / "gone")], "no such file or folder"),
        (["train", "--training.epochs", "1"], "data.root"),
    ]
    for arguments, message in cases:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        written = capsys.readouterr()
        assert end.value.code == 2 and message in written.err and written.out == "", arguments


@pytest.fixture(scope="module")
def demo(call: Call, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo") / "clips"
    return folder, result(call("demo", str(folder), "--groups", "5", "--json"))


def test_from_demo_clips_to_labels(demo: tuple[Path, dict[str, Any]], call: Call, tmp_path: Path) -> None:
    """demo, train, evaluate, classify, each a process of its own, through --json."""
    folder, made = demo
    assert made == {"clips": 40, "dir": str(folder)}
    settings = {
        "name": "small",
        "data": {"root": str(folder), "val": 0.2, "test": 0.2},
        "video": {"frames": 4, "size": 32},
        "encoder": {"name": "compact", "weights": "none", "frozen": False},
        "recurrent": {"hidden": 8, "layers": 1},
        "training": {"epochs": 1, "device": "cpu"},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(settings))
    trained = result(call("train", "small.yaml", "--training.epochs", "2", "--json", cwd=tmp_path))
    assert trained.keys() == {"checkpoint", "run_id", "folder", "test"}
    assert trained["test"].keys() >= METRICS and trained["test"]["coverage"] == 1.0 and trained["test"]["n"] == 8
    assert trained["folder"] == "runs/small" and trained["checkpoint"] == "runs/small/best"
    run = connect(f"sqlite:///{tmp_path}/mlflow.db").get_run(trained["run_id"])
    assert run.info.status == "FINISHED" and run.data.params["training.epochs"] == "2"

    evaluated = result(call("evaluate", trained["checkpoint"], "--json", cwd=tmp_path))
    assert evaluated.keys() >= METRICS
    assert {key: evaluated[key] for key in METRICS} == {key: trained["test"][key] for key in METRICS}
    assert evaluated["log_loss"] == trained["test"]["log_loss"]

    arguments = ["--out", "labels.jsonl", "--top_k", "8", "--workers", "2", "--json"]
    classified = result(call("classify", f"runs:/{trained['run_id']}", str(folder), *arguments, cwd=tmp_path))
    reasons = classified.pop("reasons")
    assert classified == {"rows": 40, "ok": 40, "failed": 0, "out": "labels.jsonl"} and reasons == {}
    from pipeline import load

    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    predictor = load(str(tmp_path / trained["checkpoint"]), "cpu")
    for row, prediction in zip(rows, predictor.predict([row["path"] for row in rows]), strict=True):
        named = {entry["label"]: entry["probability"] for entry in row["top_k"]}
        assert prediction.probabilities is not None
        assert [named[name] for name in predictor.classes] == prediction.probabilities.tolist()


def in_process(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    cli.main(arguments)
    written = capsys.readouterr()
    return written.out, written.err


def test_ingest_counts_the_files_and_their_reasons(
    tiny_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = in_process(["ingest", str(tiny_clips), "--json", "--out", str(tmp_path / "c.csv")], capsys)
    counts = {"files": 35, "ok": 30, "failed": 5, "reasons": {"not a video": 5}}
    assert json.loads(out) == counts | {"near_duplicates": []}
    assert "5 of 35 files give no clip" in err and (tmp_path / "c.csv").exists()
    out, _ = in_process(["ingest", str(tiny_clips), "--data.test", "0.4"], capsys)
    assert "35 files, 30 ok, 5 failed" in out and "5 x not a video" in out
    assert next(line for line in out.splitlines() if line.startswith("blue")).split()[0] == "blue"
    assert "units that never straddle a split: 5" in out


def test_doctor_of_files_says_what_is_wrong_with_each(tiny_clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = in_process(["doctor", str(tiny_clips / "blue"), "--json"], capsys)
    found = json.loads(out)
    failures = found.pop("failures")
    assert found == {"files": 15, "ok": 10, "failed": 5, "reasons": {"not a video": 5}, "marked": []}
    assert [item["reason"] for item in failures] == ["not a video"] * 5
    out, _ = in_process(["doctor", str(tiny_clips / "blue")], capsys)
    assert out.count("c09.mp4: not a video") == 5 and "15 files, 10 ok, 5 failed" in out


def test_describe_shows_a_configuration_and_a_model(
    example: Any, make_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(to_dict(make_config())))
    out, err = in_process(["describe", str(tmp_path / "tiny.yaml"), "--recurrent.kind", "gru"], capsys)
    assert "tiny: label, 3 classes" in out and "gru layer0" in out and "reset gate, update gate" in out and err == ""
    assert max(len(line) for line in out.splitlines()) <= 80
    out, _ = in_process(["describe", str(example.folder), "--json"], capsys)
    value = json.loads(out)
    assert value["outputs_from"] == "of the model" and value["blocks"][0]["steps"][-1]["name"] == "output"
    for given in (["--recurrent.kind", "gru"], ["--classes", "4"]):
        with pytest.raises(SystemExit):
            cli.main(["describe", str(example.folder), *given])
        assert "is a trained model, which has its options" in capsys.readouterr().err


def test_doctor_passes_here(call: Call) -> None:
    found = result(call("doctor", "--json"))
    assert found["ok"] is True and found.keys() == {"ok", "checks"}
    names = {check["name"] for check in found["checks"]}
    assert {"python", "opencv wheels", "opencv decodes", "torch and torchvision", "mlflow"} <= names
    assert all(check["ok"] and check["found"] for check in found["checks"])


def test_doctor_fails_with_the_remedy_where_a_check_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.stages import doctor

    def broken() -> doctor.Check:
        raise ImportError("libGL.so.1")

    monkeypatch.setattr(doctor, "_opencv_decodes", broken)
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor"])
    out = capsys.readouterr().out
    assert end.value.code == 1
    assert "FAIL  opencv decodes: ImportError: libGL.so.1" in out and "fix: run scripts/setup again" in out


def test_train_prints_a_result_for_people(make_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(to_dict(make_config(training__epochs=1))))
    out, err = in_process(["train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")], capsys)
    assert f"checkpoint  {tmp_path}/run/best" in out and "12/14 clips" in out
    assert "epoch   1" in err and "epoch" not in out


def test_evaluate_and_classify_print_tables(
    example: Any, tiny_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = in_process(["evaluate", str(example.folder), "--out", str(tmp_path / "report")], capsys)
    assert "12/14 clips" in out and "top-1       1.000" in out and (tmp_path / "report/metrics.json").exists()
    out, err = in_process(["classify", str(example.folder), str(tiny_clips / "blue"), "--workers", "0"], capsys)
    lines = out.splitlines()
    assert sum(" blue " in line for line in lines) == 10 and sum("not a video" in line for line in lines) == 5
    assert err.count("not classified:") == 5
    target = str(tmp_path / "labels.csv")
    out, _ = in_process(["classify", str(example.folder), str(tiny_clips / "blue"), "--out", target], capsys)
    assert out.splitlines() == ["15 rows, 10 classified, 5 failed", "  5 x not a video", f"table {target}"]


def test_a_uri_on_the_command_line_finds_the_run(
    example: Any, tiny_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"runs:/{example.result.run_id}"
    clip = str(next((tiny_clips / "red").iterdir()))
    out, _ = in_process(["classify", name, clip, "--uri", example.uri, "--json"], capsys)
    assert json.loads(out) == {"rows": 1, "ok": 1, "failed": 0, "out": None, "reasons": {}}


def test_ctrl_c_ends_a_training_with_130_and_the_same_command_goes_on(
    make_config: Any, example: Any, command: str, tmp_path: Path, call: Call
) -> None:
    """A real Ctrl-C: the whole process group gets it, decoding workers too."""
    settings = to_dict(make_config(training__epochs=5000, training__workers=2))
    settings["tracking"] = {"uri": example.uri, "experiment": "ctrl-c"}
    settings["training"]["patience"] = 0
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["train", str(tmp_path / "long.yaml"), "--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [command, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as training:
        assert training.stderr is not None
        lines = []
        for line in training.stderr:
            lines.append(line)
            if line.startswith("epoch   3"):
                os.killpg(training.pid, signal.SIGINT)
        code = training.wait(60)
    written = "".join(lines)
    assert code == 130 and "Traceback" not in written, written
    assert lines[-1].startswith("video-lstm: interrupted; the same command continues")
    client = connect(example.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("ctrl-c").experiment_id])
    assert run.info.status == "KILLED"
    assert (tmp_path / "run/best/model.safetensors").exists()

    from pipeline.stages.resume import read_state

    state = read_state(tmp_path / "run")
    assert state is not None and state.run_id == run.info.run_id
    done = call(*arguments, "--training.epochs", "4")
    assert "an unfinished training with another training.epochs" in one_line_error(done)


def test_the_import_floors_hold() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
