"""ONNX Runtime on an exported folder: arrays in, arrays out, without PyTorch."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CheckpointError, ConfigError

CARD = "export.json"
FORMAT = 1
INSTALL = "pip install 'video-lstm[onnx]'"

CPU_IMAGES = 16
"""Images per call of the encoder on a CPU: the moments of a usual clip, and maps that stay in the cache."""
GPU_IMAGES = 256
ERRORS_ALONE = 3
"""Level of ONNX Runtime's own log; its warnings are about graphs, and go to stderr past everything."""

Arrays = Mapping[str, NDArray[Any]]
"""Stream name, or name of a state's tensor -> values."""
State = dict[str, NDArray[np.float32]]


class OnnxEngine:
    """The graphs of an exported folder, each opened when it is first needed. Calls may come from several threads.

    Args:
        folder: what `video-lstm export` wrote.
        threads: of one call; 0: all cores. With more than one `parallel` call leave it at 1.
        device: cpu; cuda, cuda:1: ONNX Runtime's CUDA provider; auto: CUDA where the installed ONNX Runtime has it.

    Attributes:
        name: of library, device and precision.
        card: export.json.
        classes: names in the order of the logits; none for numbers.
        numeric, per_moment: as of `Classifier`.
        streamable: there is a step.
        images: images of each stream that `encode` is best called with.
        parallel: calls of `encode` that pay at the same time.

    Raises:
        ConfigError: ONNX Runtime is not installed, or has no such device.
        CheckpointError: the folder is no export, or is damaged.

    Example:
        >>> engine = OnnxEngine("exported")
        >>> features = engine.encode({"rgb": frames})  # uint8 (T, 3, S, S) to float32 (T, D)
        >>> logits = engine.head([features])[0]  # float32 (K)
    """

    def __init__(self, folder: str | Path, threads: int = 1, device: str = "cpu", parallel: int = 1) -> None:
        self._runtime = require("onnxruntime")
        self.folder, self.threads, self.parallel = Path(folder), threads, parallel
        self.card = read_card(self.folder)
        answer = self.card["answer"]
        self.classes: list[str] = answer["classes"]
        self.per_moment: bool = answer["per_moment"]
        self.numeric: bool = not self.classes
        self.streamable = "step.onnx" in self.card["files"]
        self._providers = _providers(self._runtime, device)
        self._wants_cuda = device.startswith("cuda")
        self._sessions: dict[str, Any] = {}
        self._opening = threading.Lock()
        self.name = "onnx cuda fp32" if self._wants_cuda else "onnx cpu fp32"
        self.images = CPU_IMAGES if self._providers[0] == "CPUExecutionProvider" else GPU_IMAGES

    def encode(self, frames: Arrays) -> dict[str, NDArray[np.float32]]:
        """Images uint8 (N, 3, S, S) of every stream that has an encoder, to features float32 (N, D) by stream."""
        found = self._run("encoder.onnx", frames)
        return {name.removesuffix(".features"): values for name, values in found.items()}

    def head(self, features: Sequence[Arrays]) -> list[NDArray[np.float32]]:
        """Features float32 (T, D) per stream of each of some clips, which may differ in T, to what the model says of
        each: logits (K) or a number (1); for a task with an answer per moment (T, K) or (T, 1).
        """
        lengths = np.array([len(next(iter(clip.values()))) for clip in features], dtype=np.int64)
        given: dict[str, NDArray[Any]] = {"lengths": lengths}
        for name in features[0]:
            given[f"{name}.features"] = _padded([clip[name] for clip in features], int(lengths.max()))
        answers = next(iter(self._run("head.onnx", given).values()))
        return [row[:length] if self.per_moment else row for row, length in zip(answers, lengths, strict=True)]

    def step(self, moment: Arrays, state: State | None = None) -> tuple[NDArray[np.float32], State]:
        """One moment of B clips, after the other.

        Args:
            moment: per stream uint8 (B, 3, S, S) images or float32 (B, D) features.
            state: what the previous call returned; None at a clip's start.

        Returns:
            Logits (B, K) or numbers (B, 1), and the next call's state. The old one is not changed.

        Raises:
            ConfigError: the model reads both ways.
        """
        if not self.streamable:
            raise ConfigError(f"{self.folder}: {self.card['left_out']['step.onnx']}")
        images = {name: x for name, x in moment.items() if x.ndim == 4}
        features = {name: x for name, x in moment.items() if x.ndim == 2} | (self.encode(images) if images else {})
        given: dict[str, NDArray[Any]] = {f"{name}.features": x for name, x in features.items()}
        found = self._run("step.onnx", given | (state or self.start(len(next(iter(features.values()))))))
        answer = found.pop("values" if self.numeric else "logits")
        return answer, {name.removeprefix("next."): x for name, x in found.items()}

    def start(self, batch: int = 1) -> State:
        """The state of clips that begin."""
        return {
            part["name"]: np.full((batch, *part["shape"][1:]), part["initial"], np.float32)
            for part in self.card["state"]
        }

    def clip(self, inputs: Arrays, lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        """Whole clips in one call of clip.onnx: per stream (B, T, ...) as they come out of the file."""
        return next(iter(self._run("clip.onnx", {**inputs, "lengths": lengths}).values()))

    def clips(self, length: int) -> int:
        """Most clips of this many moments that `head` takes at once: one on a CPU, whose numbers stay its own."""
        return 1 if self.images == CPU_IMAGES else max(1, 4096 // max(length, 64))

    def _run(self, name: str, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        session = self._session(name)
        outputs = [port["name"] for port in self.card["files"][name]["outputs"]]
        contiguous = {key: np.ascontiguousarray(x) for key, x in inputs.items()}
        return dict(zip(outputs, session.run(outputs, contiguous), strict=True))

    def _session(self, name: str) -> Any:
        with self._opening:
            if name not in self._sessions:
                self._sessions[name] = self._open(name)
            return self._sessions[name]

    def _open(self, name: str) -> Any:
        path = self.folder / name
        if name not in self.card["files"]:
            raise CheckpointError(f"{self.folder} has no {name}; export the model again")
        _check(path, self.card["files"][name]["sha256"])
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = ERRORS_ALONE
        # threads that wait by spinning would take the cores from the processes that decode
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = self._runtime.InferenceSession(str(path), options, providers=self._providers)
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise CheckpointError(f"{path} cannot be opened by ONNX Runtime ({first_line(error)})") from error
        if self._wants_cuda and "CUDAExecutionProvider" not in session.get_providers():
            raise ConfigError("ONNX Runtime cannot use CUDA here: its libraries do not load; choose --device cpu")
        return session


def read_card(folder: Path) -> dict[str, Any]:
    """export.json of an exported folder.

    Raises:
        CheckpointError: there is none, it is damaged, or of another format.
    """
    path = folder / CARD
    if not path.is_file():
        raise CheckpointError(f"{folder} is no exported folder: it has no {CARD}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from error
    if not isinstance(found, dict) or not {"files", "state", "answer", "checkpoint", "card"} <= found.keys():
        raise CheckpointError(f"{path} is damaged (it is not what export writes)")
    if found.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {found.get('format')}; this version reads format {FORMAT}: export again"
        )
    return found


def require(module: str) -> Any:
    """A module of the extra `[onnx]`.

    Raises:
        ConfigError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{module} is not installed; {INSTALL} brings what ONNX needs") from error


def first_line(error: Exception) -> str:
    """The first line of what an exception says, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _providers(runtime: Any, device: str) -> list[Any]:
    there = runtime.get_available_providers()
    kind, _, number = device.partition(":")
    if kind == "cpu" or (kind in ("auto", "mps") and "CUDAExecutionProvider" not in there):
        return ["CPUExecutionProvider"]
    if kind not in ("auto", "cuda"):
        raise ConfigError(f"the engine onnx knows the devices auto, cpu and cuda; not '{device}'")
    if "CUDAExecutionProvider" not in there:
        raise ConfigError(
            f"device '{device}': the installed ONNX Runtime is for CPUs; replace it: pip uninstall onnxruntime, "
            "pip install onnxruntime-gpu"
        )
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]


def _padded(clips: Sequence[NDArray[Any]], longest: int) -> NDArray[np.float32]:
    block = np.zeros((len(clips), longest, clips[0].shape[1]), np.float32)
    for row, clip in zip(block, clips, strict=True):
        row[: len(clip)] = clip
    return block


def _check(path: Path, sha256: str) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from error
    if found != sha256:
        raise CheckpointError(f"{path} is damaged (its checksum is not the one in {CARD})")
