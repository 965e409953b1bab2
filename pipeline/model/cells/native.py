"""The C code beside this file, compiled when it is first needed; without a compiler everything runs without it.

A step of a small LSTM is a dozen calls into PyTorch that take longer to make than to carry out. `lstm_step.c` does
them in one. It is compiled by the machine's own C compiler ($CC, else cc) in about a second, and kept in the cache
folder under a name made from its text, the compiler and the processor. VIDEO_LSTM_NATIVE=0 switches it off.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from pipeline.config.folders import cache_dir

SOURCE = Path(__file__).with_name("lstm_step.c")
FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared")
SWITCH = "VIDEO_LSTM_NATIVE"
SECONDS = 60.0


def compiler() -> str | None:
    """Path of the compiler that is used; None: there is none, or the code is switched off."""
    return None if os.environ.get(SWITCH, "1") == "0" else shutil.which(os.environ.get("CC", "cc"))


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled code, or None: switched off, no compiler, or one that fails."""
    found = compiler()
    if found is None:
        return None
    try:
        loaded = _load(found, Path(cache_dir()) / "native" / f"lstm_step-{_key(found)}.so")
    except (OSError, subprocess.SubprocessError):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.lstm_forward.argtypes = [pointer] * 7 + [number] * 3
    loaded.lstm_backward.argtypes = [pointer] * 10 + [number] * 3
    loaded.lstm_forward.restype = loaded.lstm_backward.restype = None
    return loaded


def _load(compiler: str, path: Path) -> ctypes.CDLL:
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # damaged
            path.unlink()
    _compile(compiler, path)
    return ctypes.CDLL(str(path))


def _compile(compiler: str, path: Path) -> None:
    """Beside its place and then renamed: several processes may do this at once."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        for tuned in (("-march=native",), ()):  # some compilers have no word for the processor they run on
            command = [compiler, *FLAGS, *tuned, "-o", str(made), str(SOURCE)]
            if subprocess.run(command, capture_output=True, timeout=SECONDS, check=False).returncode == 0:
                made.replace(path)
                return
    raise OSError(f"{compiler} cannot compile {SOURCE}")


def _key(compiler: str) -> str:
    """Of all that decides what the compiler makes: a cache folder may be shared by machines that differ."""
    parts = [SOURCE.read_text(encoding="utf-8"), " ".join(FLAGS), os.path.realpath(compiler), platform.platform()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        parts += sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    except OSError:
        parts.append(platform.node())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
