"""Extract as a command: the features of every clip of a configuration, in the store and as files for other tools."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data.arrays import write_arrays
from pipeline.data.catalog import Policy
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.features import FeatureStore, feature_key
from pipeline.errors import ConfigError, DataError
from pipeline.model.trunk import check_name
from pipeline.stages.devices import choose_device, choose_workers
from pipeline.stages.distributed import is_first, joined
from pipeline.stages.extract import encode_again, encoders_digest, fill, training_views
from pipeline.stages.ingest import Ingested, ingest
from pipeline.stages.progress import bar
from pipeline.stages.start import first_model

SPLITS = ("train", "val", "test")
INDEX = "index.parquet"


@dataclass(frozen=True)
class Extracted:
    """What an extraction came to.

    Attributes:
        clips: files in the data set.
        views: of the clips that decode: one each, several of training clips.
        computed: views that were encoded now.
        present: views that the store held before.
        failed: files without features.
        reasons: {reason: count} of them.
        store: folder of the feature store.
        out: folder of the exported files; None where none was asked for.
    """

    clips: int
    views: int
    computed: int
    present: int
    failed: int
    reasons: dict[str, int]
    store: str
    out: str | None = None


def extract_all(config: Config, out: str | Path | None = None) -> Extracted:
    """Store the features that a training with this configuration reads, and those of its test clips.

    What the store holds is not computed again, so an interrupted extraction goes on where it was. Several processes,
    started by `torchrun`, divide the work.

    Args:
        config: as for a training; its encoder is frozen.
        out: folder to also write the plain view of each clip to: a safetensors file per clip (per stream float32
            (T, D)) and index.parquet with a row per file: path, label, split, status, file (null where there is none),
            shape ({stream: [T, D]}). Other files in the folder stay; the index says what belongs to it.

    Raises:
        ConfigError: the encoder is not frozen, or has no weights.
        DataError: no clips, or a folder that cannot be written to.
    """
    check_frozen(config)
    device = choose_device(config.training.device)
    with joined(device):
        return _extract_all(config, None if out is None else Path(out), device)


def _extract_all(config: Config, out: Path | None, device: torch.device) -> Extracted:
    store = FeatureStore()
    if out is not None and is_first():
        _make(out)  # before the work, which must not be lost for a folder
    every = bool(config.data.folds) and not config.data.fold  # each clip is learned from in some fold
    data = ingest(config.data, split=not every, policy=Policy(config.limits, config.video.partial), task=config.task)
    data = replace(data, table=data.table.assign(split="train")) if every else data
    torch.manual_seed(config.seed)
    model = first_model(config, data.classes)[0].to(device).eval()
    plan, workers = Plan.of(config), choose_workers(config.training.workers)
    encoders = encoders_digest(model, config.encoder.grid)
    views = computed = present = 0
    failed: dict[str, str] = {}
    for split in SPLITS:
        files = data.files(split)
        requests = training_views(files, config.augmentation.views if split == "train" else 1)
        filled = fill(model, files, requests, plan, store, encoders, device, workers)
        views += sum(map(len, requests))
        computed, present = computed + filled.computed, present + filled.present
        failed |= filled.failed

    def features(file: ClipFile) -> dict[str, NDArray[np.float32]]:
        found = store.get(feature_key(file.digest, plan, encoders, None))
        return found or encode_again(model, file, None, plan, store, encoders, device)

    if out is not None and is_first():
        _export(out, data, failed, features, lambda file: feature_key(file.digest, plan, encoders, None))
    rows = data.table["path"].map(failed).fillna(data.table["status"])
    reasons = dict(Counter(str(status) for status in rows if status != "ok").most_common())
    return Extracted(
        len(rows),
        views,
        computed,
        present,
        sum(reasons.values()),
        reasons,
        str(store.folder),
        None if out is None else str(out),
    )


def check_frozen(config: Config) -> None:
    """Raises ConfigError where there are no features to store: an encoder that is trained, or has no weights."""
    if not config.image_streams:
        return
    check_name(config.encoder.name)
    if not config.encoder.frozen:
        raise ConfigError("features of an encoder that is trained cannot be stored; set encoder.frozen true")
    if config.encoder.weights == "none" and config.training.start_from is None:
        raise ConfigError("a frozen encoder without weights has no features worth storing; set encoder.weights")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made ({error.strerror}); choose another --out") from None


def _export(
    folder: Path,
    data: Ingested,
    failed: dict[str, str],
    features: Callable[[ClipFile], dict[str, NDArray[np.float32]]],
    key: Callable[[ClipFile], str],
) -> None:
    """A file per clip, then the index: it appears when all it names is there."""
    files = {split: iter(data.files(split)) for split in SPLITS}
    rows: list[dict[str, Any]] = []
    columns = (data.table[name].tolist() for name in ("path", "label", "split", "status"))
    try:
        with bar("exporting", len(data.table)) as advance:
            for path, label, split, status in zip(*columns, strict=True):
                advance(1)
                row = {"path": path, "label": label, "split": split, "status": failed.get(path, status)}
                file = next(files[split]) if status == "ok" else None
                if file is not None and path not in failed:
                    arrays = features(file)
                    name = f"{key(file)[:32]}.safetensors"
                    write_arrays(folder / name, name, arrays)
                    row |= {"file": name, "shape": {stream: list(x.shape) for stream, x in arrays.items()}}
                rows.append(row)
        _write_index(rows, folder / INDEX)
    except OSError as error:
        raise DataError(f"{folder}: the features cannot be exported ({error.strerror or error})") from error


def _write_index(rows: list[dict[str, Any]], path: Path) -> None:
    streams = sorted({stream for row in rows for stream in row.get("shape", ())})
    text = [(name, pa.string()) for name in ("path", "label", "split", "status", "file")]
    schema = pa.schema([*text, ("shape", pa.struct([(stream, pa.list_(pa.int64())) for stream in streams]))])
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
