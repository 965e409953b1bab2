"""What a run ran in: the changes that no commit has, every installed package, the machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from pipeline.process import usable_cores
from pipeline.tracking.run import Run
from pipeline.tracking.store import hide_password

FOLDER = "environment"
"""Artifact folder of what is here."""
PATCH_BYTES = 1_000_000
"""Most of a patch that is kept."""
UNTRACKED = 200
"""Most files without a history that are named."""
GIT_SECONDS = 10.0
"""After which a repository that is too large is given up."""


def record_environment(run: Run, stage: str, epoch: int = 0) -> None:
    """Everything about the place where a run runs that is needed to repeat it.

    Args:
        run: it.
        stage: which command, for the tag `stage`.
        epoch: after which it goes on; what it ran in before is kept.
    """
    if run.run_id is None:
        return
    tags, patch = repository()
    folder = f"{FOLDER}/after_epoch_{epoch}" if epoch else FOLDER
    run.tags({"stage": stage, **tags, **hardware()})
    run.text(packages(), f"{folder}/packages.txt")
    if patch:
        run.text(patch, f"{folder}/changes.patch")


def packages() -> str:
    """Every distribution that can be imported, as `name==version` lines that pip reads."""
    found = {str(item.metadata["Name"]): item.version for item in metadata.distributions() if item.metadata["Name"]}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items(), key=lambda one: one[0].lower()))


def repository() -> tuple[dict[str, str], str]:
    """Tags about the repository of the current folder, and a patch from its commit to what ran.

    The patch goes through `git apply`; passwords in addresses are blanked, and one above `PATCH_BYTES` is cut, which
    its first line says. Files without a history are named in lines above it; what they hold is not kept.

    Returns:
        `git.dirty`, and what MLflow shows of branch and origin; both empty outside a repository.
    """
    top = _git("rev-parse", "--show-toplevel")
    if top is None:
        return {}, ""
    tags = {}
    if branch := _git("symbolic-ref", "--short", "-q", "HEAD"):
        tags["mlflow.source.git.branch"] = branch.strip()
    if origin := _git("config", "--get", "remote.origin.url"):
        tags["mlflow.source.git.repoURL"] = hide_password(origin.strip())
    changes = _git("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--binary")
    new = _git("-C", top.strip(), "ls-files", "--others", "--exclude-standard", "--directory", "--no-empty-directory")
    tags["git.dirty"] = "unknown" if changes is None else str(bool(changes or new)).lower()
    return tags, _patch(changes or "", (new or "").splitlines())


def _patch(changes: str, new: list[str]) -> str:
    """The patch below the names of what it lacks; empty where nothing differs from the commit."""
    head = []
    if len(changes) > PATCH_BYTES:
        head.append(f"# cut: the whole patch has {len(changes)} characters; it cannot be applied")
        changes = changes[:PATCH_BYTES] + "\n"
    if new:
        head.append("# files and folders without a history, which are not in this patch:")
        head += [f"#   {name}" for name in new[:UNTRACKED]]
        head += [f"#   ... and {len(new) - UNTRACKED} more"] if len(new) > UNTRACKED else []
    return hide_password("".join(f"{line}\n" for line in head) + changes)


def _git(*arguments: str) -> str | None:
    """What git says; None without git or repository, or where it takes too long."""
    command = ["git", "--no-optional-locks", "-c", "core.quotepath=off", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def hardware() -> dict[str, str]:
    """Tags `hardware.*`: host, system, processor, cores that may be used, memory; GPUs with their driver."""
    found: dict[str, Any] = {
        "host": platform.node(),
        "system": platform.platform(terse=True),
        "cpu": _processor(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        **_gpus(),
    }
    return {f"hardware.{key}": str(value) for key, value in found.items() if value not in (None, "")}


def _processor() -> str:
    """The model's name, which Python knows on some systems alone."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpus() -> dict[str, str]:
    """Names and memory of the NVIDIA GPUs, driver and CUDA; from NVML, or from torch where that is loaded."""
    torch = sys.modules.get("torch")  # whoever has a GPU at work has loaded it, and no other needs to wait for it
    cuda = getattr(getattr(torch, "version", None), "cuda", None)
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            names = [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
            driver = str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no GPU, no driver, no such package: there is nothing to say then
        if torch is None or not torch.cuda.is_available():
            return {}
        names, driver = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())], ""
    return {"gpu": ", ".join(names), "gpu_driver": driver, "cuda": cuda or ""}
