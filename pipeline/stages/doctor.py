"""Doctor: is the installation whole, and which files of a folder can be decoded?"""

from __future__ import annotations

import base64
import hashlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.data import catalog
from pipeline.data.layouts import Entry
from pipeline.stages.find import find_files
from pipeline.stages.ingest import failures
from pipeline.stages.progress import bar

OPENCV_FIX = "pip install --force-reinstall --no-deps opencv-python=={version}"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and the remedy where it is not as it should be."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def check_installation() -> list[Check]:
    """Look at everything the pipeline stands on. A check that breaks is a check that failed."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("python", _python),
        ("opencv wheels", _opencv_wheels),
        ("opencv decodes", _opencv_decodes),
        ("torch and torchvision", _torch),
        ("albumentations", _albumentations),
        ("mlflow", _mlflow),
        ("packaged weights", _weights),
        ("shared memory", _shared_memory),
        ("C compiler", _compiler),
    ]
    results = []
    for name, check in checks:
        try:
            results.append(check())
        except Exception as error:  # whatever breaks here is the finding
            results.append(Check(name, False, f"{type(error).__name__}: {error}", "run scripts/setup again"))
    return results


def check_files(sources: list[str], policy: catalog.Policy | None = None) -> dict[str, Any]:
    """Decode every file of folders, globs or lists once.

    Args:
        sources: as `classify` takes them; in folders, hidden files and videos without a suffix count too.
        policy: which files count as usable.

    Returns:
        {files, ok, failed, reasons: {reason: count}, failures: [{path, reason, detail}], marked: [{path, marks}]};
        `marked` names the usable files that are unusual.
    """
    entries = [Entry(path, "", None, None) for path in find_files(sources, thorough=True)]
    with bar("decoding", len(entries)) as advance:
        table = catalog.build(entries, policy, progress=advance)
    marked = table[(table["status"] == catalog.OK) & (table["marks"] != "")]
    pairs = zip(marked["path"].tolist(), marked["marks"].tolist(), strict=True)
    found = {"failures": failures(table[table["status"] != catalog.OK])}
    return catalog.summary(table) | found | {"marked": [{"path": path, "marks": marks} for path, marks in pairs]}


def as_dicts(checks: list[Check]) -> list[dict[str, Any]]:
    """The checks as plain values."""
    return [asdict(check) for check in checks]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _opencv_wheels() -> Check:
    """Two wheels own one cv2 folder: opencv-python (ours) and -headless (albumentations asks for it).

    The one written last is the one that runs; it must be opencv-python's, and of the version that is recorded.
    """
    name = "opencv wheels"
    try:
        ours = metadata.distribution("opencv-python")
    except metadata.PackageNotFoundError:
        return Check(name, False, "opencv-python is not installed", "pip install opencv-python")
    fix = OPENCV_FIX.format(version=ours.version)
    try:
        headless = metadata.version("opencv-python-headless")
    except metadata.PackageNotFoundError:
        headless = None
    if headless not in (None, ours.version):
        return Check(name, False, f"opencv-python {ours.version} beside opencv-python-headless {headless}", fix)
    modules = [file for file in ours.files or [] if file.name.startswith("cv2") and file.suffix in (".so", ".pyd")]
    for module in modules:
        path = Path(str(module.locate()))
        if not path.exists() or (module.hash and _record_hash(path) != module.hash.value):
            return Check(name, False, f"{path.name} is not the one opencv-python {ours.version} installed", fix)
    beside = " (headless of the same version beneath it)" if headless else ""
    return Check(name, True, f"opencv-python {ours.version}{beside}")


def _record_hash(path: Path) -> str:
    """sha256 the way a wheel's RECORD writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()


def _opencv_decodes() -> Check:
    """Write a video and read it back: a half-removed wheel imports and fails only here."""
    import numpy as np

    from pipeline.video.reader import probe
    from pipeline.video.writer import write_video

    frames = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "check.mp4")
        write_video(path, frames, 10.0, "mp4v")
        found = probe(path)
    ok = found.frames == 5 and (found.width, found.height) == (64, 48)
    return Check("opencv decodes", ok, f"{found.frames} of 5 frames written and read", "run scripts/setup again")


def _torch() -> Check:
    import torch
    import torchvision

    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    torchvision.ops.nms(box, torch.ones(1), 0.5)  # fails when the two were built for each other's other versions
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return Check("torch and torchvision", True, f"{torch.__version__}, {torchvision.__version__}; {device}")


def _albumentations() -> Check:
    import numpy as np

    from pipeline.data.transforms import transform_clip

    shape = transform_clip(np.zeros((2, 10, 12, 3), dtype=np.uint8), 8, "crop").shape
    return Check("albumentations", shape == (2, 8, 8, 3), metadata.version("albumentations"))


def _mlflow() -> Check:
    return Check("mlflow", True, metadata.version("mlflow"))


def _weights() -> Check:
    """Optional, so never a failure: what is missing is said with how to get it."""
    from pipeline.errors import WeightsError
    from pipeline.model.weights import PACKAGES, load_weights

    found, missing = [], []
    for name in PACKAGES:
        try:
            load_weights(name, "packaged")
            found.append(name)
        except WeightsError as error:
            missing.append(f"{name} absent ({error})")
    return Check("packaged weights", True, "; ".join(found + missing))


def _shared_memory() -> Check:
    """Decoding workers hand frames over in shared memory; Docker gives 64 MB of it by default."""
    folder = Path("/dev/shm")  # noqa: S108  (looked at, never written)
    if not folder.exists():
        return Check("shared memory", True, "not used on this system")
    import shutil

    free = shutil.disk_usage(folder).free / 2**20
    fix = "docker run --ipc=host, or --training.workers 0"
    return Check("shared memory", free > 256, f"{free:.0f} MB free in /dev/shm", fix)


def _compiler() -> Check:
    """The steps of the LSTM family run faster where they can be compiled."""
    from pipeline.model.cells import native

    fix = f"look at: cc {native.SOURCE}; or set {native.SWITCH}=0"
    if native.library() is not None:
        return Check("C compiler", True, "steps of the LSTM family are compiled")
    if native.compiler() is None:
        return Check("C compiler", True, "none, or switched off: steps of the LSTM family run in plain PyTorch, slower")
    return Check("C compiler", False, f"{native.compiler()} does not compile the steps of the LSTM family", fix)
