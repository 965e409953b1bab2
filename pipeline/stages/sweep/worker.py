"""A process that trials run in, one after the other, from its start to its end.

It is told what to do by lines of JSON and answers with lines: one for each epoch, to which it is told whether to go on,
and one at the end. A closed connection is a scheduler's stop: the training in progress saves where it is and ends.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from pipeline.config import Config
from pipeline.data.catalog import Policy
from pipeline.errors import ConfigError, Preempted, UserError
from pipeline.model import checkpoint
from pipeline.process import prepare_process
from pipeline.report.tables import write_json
from pipeline.stages.checks import check_data, check_encoder, check_task
from pipeline.stages.devices import choose_device, choose_workers
from pipeline.stages.ingest import ingest
from pipeline.stages.inside import Reading
from pipeline.stages.resume import FORMER, NAME
from pipeline.stages.run_folder import RESULT
from pipeline.stages.train import Pruned, test_trained, train

PRUNED = "pruned.json"
"""In a trial's folder: after which epoch it was given up, and its metric there."""
LOG = "log.txt"
LOCK_SECONDS = 60.0
"""Longest wait for the training of a killed sweep to leave a trial's folder."""

Message = dict[str, Any]


def main(descriptor: int) -> None:
    """Do what is asked until the other side is gone."""
    signal.signal(signal.SIGINT, _stop)
    prepare_process()
    with suppress(KeyboardInterrupt), socket.socket(fileno=descriptor) as connection:
        wire = Wire(connection)
        while (task := wire.take()) is not None:
            wire.busy = True
            wire.send(perform(task, wire))
            wire.busy = False


def _stop(*_: object) -> None:
    raise Preempted


class Wire:
    """The other side: what it says waits in a queue; when it is gone, the main thread is interrupted.

    Attributes:
        busy: the main thread has something to be interrupted in.
    """

    busy = False

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines: queue.Queue[Message | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError), self._connection.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                self._lines.put(json.loads(line))
        self._lines.put(None)
        main_thread = threading.main_thread().ident
        if self.busy and main_thread is not None:
            signal.pthread_kill(main_thread, signal.SIGINT)

    def take(self) -> Message | None:
        """The next message; None: there will be none."""
        return self._lines.get()

    def send(self, message: Message) -> None:
        """Say something.

        Raises:
            Preempted: nobody listens any more.
        """
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            raise Preempted from None


def perform(task: Message, wire: Wire) -> Message:
    """Answer one task: `check`, `train` or `test`; what goes wrong is the answer `failed`.

    Args:
        task: {do, config, folder, ...}: see `_check`, `_train` and `_test`.
        wire: for what is said and asked meanwhile.
    """
    try:
        config = checkpoint.config_from_dict(task["config"])
        return {"check": _check, "train": _train, "test": _test}[task["do"]](config, task, wire)
    except UserError as error:
        return {"failed": str(error)}
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
        return {"failed": reason, "traceback": traceback.format_exc()}


def _check(config: Config, *_: Any) -> Message:
    """What can be known to be wrong before the first trial. All files are examined here, so that trials that run at a
    time do not each do so.
    """
    choose_device(config.training.device)
    check_encoder(config)
    check_task(config)
    data = ingest(config.data, policy=Policy(config.limits, config.video.partial), task=config.task)
    check_data(data, config.data)
    if not data.files("val"):
        raise ConfigError("there are no validation clips to compare trials by; set base.data.val above 0")
    return {}


def _train(config: Config, task: Message, wire: Wire) -> Message:
    """Train a trial in its folder, or go on with it; what is there already is not done again."""
    folder, metric = Path(task["folder"]), task["metric"]
    _wait_for(folder)
    last: Message = {}

    def on_epoch(row: dict[str, float], _: Reading) -> None:
        last.update(epoch=int(row["epoch"]), value=row[metric])
        wire.send(last)
        answer = wire.take()
        if answer is None:
            raise Preempted
        if answer["prune"]:
            raise Pruned(f"after epoch {last['epoch']}, {metric} {row[metric]:.4g}")

    with logged(folder / LOG):
        if not (folder / RESULT).exists() and not (folder / PRUNED).exists():
            try:
                train(_placed(config, task), folder, parent=task["parent"], on_epoch=on_epoch, test=False)
            except Pruned:
                write_json(last, folder / PRUNED)
                for name in (NAME, FORMER):
                    (folder / name).unlink(missing_ok=True)
    if (folder / PRUNED).exists():
        return {"pruned": True}
    card = checkpoint.load(folder / "best")[1]
    result = json.loads((folder / RESULT).read_text())
    return {"finished": card.metrics[metric], "run_id": result["run_id"]}


def _test(config: Config, task: Message, wire: Wire) -> Message:
    """Score a finished trial on the test split."""
    with logged(Path(task["folder"]) / LOG):
        return {"test": test_trained(_placed(config, task), task["folder"])}


def _placed(config: Config, task: Message) -> Config:
    """With its share of a machine on which `parallel` trials run: this is number `slot`."""
    settings, slot, parallel = config.training, task["slot"], task["parallel"]
    if parallel > 1 and settings.workers < 0:
        settings = replace(settings, workers=max(1, choose_workers(-1) // parallel))
    if parallel > 1 and settings.device == "auto" and torch.cuda.device_count() > 1:
        settings = replace(settings, device=f"cuda:{slot % torch.cuda.device_count()}")
    return replace(config, training=settings)


def _wait_for(folder: Path) -> None:
    """A sweep that was killed takes its trainings with it, but not in the same moment."""
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout), FileLock(folder / ".lock", timeout=LOCK_SECONDS):
        pass


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Whatever is written to stdout and stderr goes into a file, by libraries in C too; what ends the block as well."""
    kept = [os.dup(number) for number in (1, 2)]
    with path.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield
        except UserError as error:
            print(f"error: {error}", file=file)
            raise
        except Exception:
            traceback.print_exc()
            raise
        finally:
            for number, before in zip((1, 2), kept, strict=True):
                os.dup2(before, number)
                os.close(before)
