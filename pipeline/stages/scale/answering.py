"""What a cluster's actors do: answer to decoded clips with a model that was sent to them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch

from pipeline.data.clip_file import ClipFile
from pipeline.data.wire import pack, unpack
from pipeline.process import prepare_process
from pipeline.stages.engine import Precision
from pipeline.stages.predict import Prediction, Predictor, load_predictor
from pipeline.stages.scale.decoding import table_of


@dataclass(frozen=True)
class Shipped:
    """A checkpoint on its way to another machine, and how it is to be run there.

    Attributes:
        files: name -> bytes, see `checkpoint.contents`.
        device: cpu or cuda.
        precision: of the encoder.
    """

    files: dict[str, bytes]
    device: str
    precision: Precision

    def unpacked(self) -> Predictor:
        """The model, here. On a CPU it has one thread: an actor has one core."""
        if self.device == "cpu":
            torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            return load_predictor(Path(folder), self.device, self.precision)


class Answering:
    """An actor: one model, which answers to batches of clips.

    Args:
        shipped: the model.
    """

    def __init__(self, shipped: Shipped) -> None:
        prepare_process()
        self.predictor = shipped.unpacked()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Clips of `decode` to `Prediction`s, in their order."""
        found = [unpack(clip.as_py()) for clip in table["clip"]]
        files = [ClipFile(path) for path, _ in found]
        clips = [replace(loaded, index=index) for index, (_, loaded) in enumerate(found)]
        return table_of("prediction", [pack(one) for one in self.predictor.answers(clips, files)])


def predictions_of(table: pa.Table) -> Iterator[Prediction]:
    """What `Answering` has put into a table."""
    for one in table["prediction"]:
        yield unpack(one.as_py())
