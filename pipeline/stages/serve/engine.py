"""The served model: a row in, a row out, for many callers at once.

Files are decoded in processes of their own, with limits of time and memory: a file that crashes the decoder costs its
row. Each process takes one file at a time and the network runs in one thread, so what is in memory at a time does not
grow with the number of callers; the others wait.
"""

from __future__ import annotations

import base64
import binascii
import queue
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.data.catalog import Policy
from pipeline.data.clip_file import ClipFile
from pipeline.data.loading import LoadedClip, load_file
from pipeline.data.pool import Lost, Pool
from pipeline.errors import Reason, VideoError
from pipeline.stages.devices import choose_workers
from pipeline.stages.predict import Prediction, Predictor, load_predictor
from pipeline.stages.rows import result_row
from pipeline.stages.serve.allowed import parse
from pipeline.stages.serve.fetch import fetch
from pipeline.stages.serve.scratch import Scratch
from pipeline.stages.serve.settings import Settings, from_environment

UNCERTAIN = "uncertain"
"""Status of a row whose best probability is below `min_probability`; its label is empty."""
ANSWER = (
    "status",
    "note",
    "label",
    "probability",
    "top_k",
    "segments",
    "value",
    "values",
    "frames",
    "duration",
    "model",
)
"""What a row of the answer may have, of the columns of a table of results."""


class VideoServer:
    """One model and its decoding processes, which end with it.

    Args:
        predictor: the model.
        settings: what it may read, and what a request may cost.

    Raises:
        ConfigError: settings that cannot be.
    """

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self.predictor, self.settings = predictor, settings
        self._allowed = parse(settings.allow)
        limits = replace(predictor.plan.limits, seconds=min(predictor.plan.limits.seconds, settings.timeout))
        self._plan = predictor.reading(Policy(limits, "accept"))  # as `classify` reads files
        self._scratch = Scratch()
        self._idle: queue.LifoQueue[Pool] = queue.LifoQueue()
        for _ in range(max(1, choose_workers(settings.workers))):
            self._idle.put(self._new_pool())
        self._network = ThreadPoolExecutor(1, thread_name_prefix="network")

    @staticmethod
    def of(folder: str | Path) -> VideoServer:
        """A checkpoint folder, served as the environment says.

        Raises:
            CheckpointError: it is missing or damaged.
            ConfigError: the environment's settings cannot be.
        """
        settings = from_environment()
        return VideoServer(load_predictor(Path(folder), settings.device), settings)

    def answer(
        self, video: Any = None, content: Any = None, name: Any = None, top_k: int = 5, min_probability: float = 0.0
    ) -> dict[str, Any]:
        """The answer to one row; whatever is wrong with it is its status.

        Args:
            video: path or http(s) URL of a file that may be read; nothing (None, NaN, empty) where there is `content`.
            content: a video file in base64, with or without `data:video/mp4;base64,` before it.
            name: of the file in `content`; its suffix tells an image from a video, as it does for `classify`. Without
                it that is told from how the file begins.
            top_k: classes named, where a clip has one label.
            min_probability: a best probability below it gives the status `uncertain` and no label.
        """
        try:
            with self._file(_text(video), _text(content), _text(name)) as path:
                row = self._classified(path, top_k)
        except VideoError as error:
            row = {"status": str(error.reason), "note": error.detail, "model": self.predictor.digest}
        except Exception as error:  # a bug of ours costs its row, not those of others; the log has the rest
            traceback.print_exc(file=sys.stderr)
            note = f"an error of the server: {type(error).__name__}"
            row = {"status": str(Reason.CRASHED), "note": note, "model": self.predictor.digest}
        if "probability" in row and row["probability"] < min_probability:
            row["note"] = "; ".join(
                filter(None, [row["note"], f"the best label, {row['label']}, is below the minimum"])
            )
            row |= {"status": UNCERTAIN, "label": None}
        return {name: row[name] for name in ANSWER if name in row}

    def close(self) -> None:
        """End the processes and remove what lies on the disk."""
        self._network.shutdown()
        while not self._idle.empty():
            self._idle.get().close()
        self._scratch.close()

    @contextmanager
    def _file(self, video: str | None, content: str | None, name: str | None) -> Iterator[str]:
        """Where the file of a row lies, while it is read."""
        if bool(video) == (content is not None):
            raise VideoError("", Reason.NOT_READABLE, "a row needs either video, a path or URL, or content, base64")
        if content is not None:
            with self._scratch.file(self._decoded(content), name or "") as path:
                yield path
            return
        assert video is not None
        if "://" not in video:
            real = self._allowed.file(video)
            self._check_size(Path(real).stat().st_size)
            yield real
        else:
            parts = self._allowed.url(video)
            limits = self.settings.most_bytes, self.settings.timeout
            with self._scratch.file(lambda file: fetch(parts, file, *limits), parts.path) as path:
                yield path

    def _decoded(self, content: str) -> bytes:
        if content.startswith("data:"):
            content = content.partition(",")[2]
        self._check_size(len(content) * 3 // 4 - 2)
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise VideoError("", Reason.NOT_READABLE, "content is not base64") from None

    def _check_size(self, size: int) -> None:
        if size > self.settings.most_bytes:
            detail = f"{size / 1e6:.1f} MB, over {self.settings.megabytes:g} MB"
            raise VideoError("", Reason.TOO_LARGE, detail)

    def _classified(self, path: str, top_k: int) -> dict[str, Any]:
        loaded = self._loaded(path)
        if loaded.error is not None:
            raise loaded.error
        assert loaded.clip is not None
        if loaded.duration > self.settings.seconds:
            detail = f"it lasts {loaded.duration:.0f} s, over {self.settings.seconds:g} s"
            raise VideoError(path, Reason.TOO_LARGE, detail)
        answer = self._network.submit(self.predictor.answer, loaded.clip).result()
        probabilities, values = (None, answer) if self.predictor.model.numeric else (answer, None)
        clip = loaded.clip
        found = Prediction(
            path, probabilities, None, clip.length, loaded.duration, 0.0, loaded.note, values, clip.times
        )
        return result_row(found, self.predictor, top_k)

    def _loaded(self, path: str) -> LoadedClip:
        """The clip, read by the next process that is free."""
        pool = self._idle.get()
        try:
            (found,) = pool.run(partial(load_file, self._plan), [(0, ClipFile(path), None)])
        except BaseException:  # it cannot be used any more
            pool.close()
            pool = self._new_pool()
            raise
        finally:
            self._idle.put(pool)
        if isinstance(found, Lost):
            return LoadedClip(0, None, VideoError(path, found.reason, found.detail))
        return found

    def _new_pool(self) -> Pool:
        return Pool(1, self._plan.limits.seconds, self._plan.limits.memory)


def _text(value: Any) -> str | None:
    """What a cell of a table holds; an empty one holds None or NaN."""
    return value.strip() if isinstance(value, str) else None
