"""Pictures of the real MLflow UI on real runs, for docs/tracking.md: `python scripts/ui_pictures.py --out docs/img`.

Trains a few small models on the optical flow of demo clips (minutes), registers them, lets the best one pass the gate,
classifies an archive, starts `video-lstm ui` and photographs its pages with Chromium through Playwright. What is in
--folder already is used again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "pipeline"]
RUNS = {
    "lstm": ["--recurrent.kind", "lstm"],
    "gru": ["--recurrent.kind", "gru"],
    "lstm-small": ["--recurrent.kind", "lstm", "--recurrent.hidden", "8", "--recurrent.projection", "8"],
}
MODEL = "demo-motions"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGE = "report/index.html"
"""The report of an evaluation, where the run has one."""
LARGEST = 250_000
SETTINGS = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "databricks-dark-mode-pref": "light",
}
"""What a person would click once: the menu of model training, no assistant, light colours."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img", help="folder for the pictures")
    parser.add_argument("--folder", type=Path, default=Path("ui_pictures"), help="folder for clips, runs and store")
    parser.add_argument("--groups", type=int, default=30, help="groups of demo clips; fewer is faster")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="print the pictures' sizes as JSON")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    prepare(given.folder, given.groups, given.epochs)
    with ui(given.folder, given.folder / "ui.log") as address:
        sizes = photograph(address, given.folder, given.out)
    print(json.dumps(sizes) if given.json else "\n".join(f"{size:>8}  {name}" for name, size in sizes.items()))
    large = [name for name, size in sizes.items() if size > LARGEST]
    if large:
        sys.exit(f"larger than {LARGEST} bytes: {', '.join(large)}")


def prepare(folder: Path, groups: int, epochs: int) -> None:
    """Clips, trainings, a registered model with an alias, and a classification whose answers drift."""
    if not (folder / "clips").exists():
        call(folder, "demo", "clips", "--groups", str(groups))
    for name, options in RUNS.items():
        if not (folder / "runs" / name / "result.json").exists():
            wanted = ["--name", name, "--data.root", "clips", "--training.epochs", str(epochs)]
            call(folder, "train", str(ROOT / "configs/flow.yaml"), *wanted, *options)
    results = {name: json.loads((folder / "runs" / name / "result.json").read_text()) for name in RUNS}
    ranked = sorted(RUNS, key=lambda name: results[name]["test"]["top1"])
    best = ranked[-1]
    for name in ranked:  # each next one challenges the champion; 1: it is registered, and was not found better
        call(folder, "register", f"runs/{name}", "--name", MODEL, "--alias", "champion", fine=(0, 1))
    if not (folder / "labels.csv").exists():
        archive = ["clips/up", "clips/left"]
        call(folder, "classify", f"runs/{best}", *archive, "--out", "labels.csv", "--track")


def call(folder: Path, *arguments: str, fine: tuple[int, ...] = (0,)) -> None:
    """A command of video-lstm in a folder; any other exit code ends the script."""
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    if done.returncode not in fine:
        sys.exit(f"ui_pictures: video-lstm {' '.join(arguments)} ended with {done.returncode}")


def environment() -> dict[str, str]:
    """Python finds this checkout, whatever is installed."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {name: x for name, x in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | {"PYTHONPATH": paths}


@contextmanager
def ui(folder: Path, log: Path) -> Iterator[str]:
    """`video-lstm ui` on the folder's store, at the address that it says itself."""
    from pipeline.tracking.ui import free_port

    with log.open("w") as file:
        command = [*COMMAND, "ui", "--port", str(free_port(0))]
        server = subprocess.Popen(command, cwd=folder, env=environment(), stdout=file, stderr=file)
    try:
        yield _address(server, log)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 120
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and server.poll() is None:
        said = [word for word in log.read_text().split() if word.startswith("http://127.0.0.1")]
        try:
            if said:
                opener.open(f"{said[0]}/health", timeout=5)
                return said[0]
        except OSError:
            pass
        time.sleep(0.5)
    sys.exit(f"video-lstm ui did not start:\n{log.read_text()}")


def chromium() -> str | None:
    """Where the browser is."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


@contextmanager
def browser(settings: dict[str, str]) -> Iterator[Any]:
    """A page of Chromium that finds these settings in its local storage."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        page = opened.new_page(viewport={"width": 1400, "height": 860})
        page.set_default_timeout(60_000)
        page.add_init_script("".join(f"localStorage.setItem({k!r}, {v!r});" for k, v in settings.items()))
        try:
            yield page
        finally:
            opened.close()


def photograph(address: str, folder: Path, out: Path) -> dict[str, int]:
    """All pictures; their sizes in bytes by name."""
    from pipeline.tracking.store import connect

    client = connect(f"sqlite:///{(folder / 'mlflow.db').absolute()}", create=False)
    ids = {name: json.loads((folder / "runs" / name / "result.json").read_text())["run_id"] for name in RUNS}
    experiment = client.get_run(ids["lstm"]).info.experiment_id
    other = client.get_experiment_by_name("video-lstm-classify").experiment_id
    classified = client.search_runs([other])[0].info.run_id
    out.mkdir(parents=True, exist_ok=True)
    runs, run = f"{address}/#/experiments/{experiment}/runs", ids["lstm"]
    both = json.dumps([ids["lstm"], ids["gru"]])
    sizes = {}
    with browser(SETTINGS) as page:

        def shot(name: str, url: str, sees: str, *clicks: str, size: tuple[int, int] = (1400, 860)) -> None:
            page.set_viewport_size({"width": size[0], "height": size[1]})
            page.goto(url)
            for text in clicks:
                if text.startswith("search "):
                    page.get_by_placeholder("Search metric charts").fill(text.removeprefix("search "))
                else:
                    page.get_by_text(text, exact=True).first.click()
            page.get_by_text(sees).first.wait_for()
            page.wait_for_timeout(2500)  # charts move into their places
            page.mouse.move(0, 0)
            page.screenshot(path=str(out / f"{name}.png"))
            sizes[f"{name}.png"] = (out / f"{name}.png").stat().st_size

        shot("ui_runs", f"{runs}?viewStateShareKey=video-lstm", "lstm-small", size=(1820, 520))
        shot("ui_run", f"{runs}/{run}", "Datasets")
        shot("ui_charts", f"{runs}/{run}/model-metrics", "step/loss", "search loss")
        shot("ui_system", f"{runs}/{run}/system-metrics", "cpu_utilization_percentage")
        shot("ui_artifacts", f"{runs}/{run}/artifacts", "confusion.png", "report", "confusion.png")
        compared = f'{address}/#/compare-runs?runs={both}&experiments=["{experiment}"]'
        if any(item.path == PAGE for item in client.list_artifacts(run, "report")):
            shot("ui_report", f"{runs}/{run}/artifacts", PAGE, "report", "index.html")
        shot("ui_compare", compared, "Comparing", "Visualizations", "Run details", "Show diff only")
        shot("ui_models", f"{address}/#/experiments/{experiment}/models", "Registered models", size=(1820, 520))
        shot("ui_model", f"{address}/#/models/{MODEL}", "champion", size=(1400, 1240))
        drift = f"{address}/#/experiments/{other}/runs/{classified}/artifacts"
        shot("ui_drift", drift, "drift.png", "report", "drift.png", size=(1400, 1060))
    return sizes


if __name__ == "__main__":
    main()
