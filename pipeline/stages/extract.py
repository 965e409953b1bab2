"""Extract: what a frozen encoder makes of each clip, computed once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.features import LIMIT, FeatureStore, feature_key
from pipeline.data.stream import Request, stream_clips, view_seed
from pipeline.errors import DataError
from pipeline.model.classifier import Classifier
from pipeline.model.weights import weights_digest
from pipeline.stages.distributed import barrier, gather, place
from pipeline.stages.predict import encode_clip
from pipeline.stages.progress import bar, say

STANDARDISED_CLIPS = 256
"""Clips read to standardise a stream that no store holds: enough for a mean and a deviation."""


@dataclass(frozen=True)
class Filled:
    """What a store was given.

    Attributes:
        computed: clip views that were encoded.
        present: clip views that it held before.
        failed: path and reason of the files that could not be read; they have no features.
    """

    computed: int
    present: int
    failed: dict[str, str]


def encoders_digest(model: Classifier, grid: int) -> str:
    """What decides the features besides the clip: the encoders' weights and precision, and the grid of averages."""
    precisions = "+".join(sorted({str(encoder.precision) for encoder in model.encoders.values()}))
    return f"{weights_digest(model.encoders)}:{grid}:{precisions}"


def training_views(files: Sequence[ClipFile], views: int) -> list[list[Request]]:
    """Per clip, the plain view and `views - 1` random ones.

    A view's seed comes from the clip's content, so that another training, with another seed or more clips, finds the
    same views in the store.
    """
    return [
        [(i, None), *((i, view_seed(int(file.digest[:12], 16), view)) for view in range(1, views))]
        for i, file in enumerate(files)
    ]


def fill(
    model: Classifier,
    files: Sequence[ClipFile],
    requests: Sequence[Sequence[Request]],
    plan: Plan,
    store: FeatureStore,
    encoders: str,
    device: torch.device,
    workers: int,
) -> Filled:
    """Fill the store with the views that it does not hold yet; interrupted, the same call goes on where it was.

    Several processes divide the work. Those of a machine whose store is not that of the others divide what it still
    lacks: where machines share a store each view is encoded once, where they do not, once on each machine.

    Args:
        model: with frozen encoders.
        files: the clips.
        requests: per clip its views, see `training_views`.
        plan, store, encoders: see `feature_key`.

    Raises:
        DataError: the store cannot be written to.
    """
    model.eval()
    keys = {view: feature_key(files[view[0]].digest, plan, encoders, view[1]) for views in requests for view in views}

    def lacking(failed: dict[str, str]) -> list[Request]:
        barrier()  # nobody writes before all have looked
        found = [r for r, key in keys.items() if files[r[0]].path not in failed and store.get(key) is None]
        barrier()
        return found

    def encode(requests: Sequence[Request]) -> dict[str, str]:
        return _encode(model, files, {request: keys[request] for request in requests}, plan, store, device, workers)

    here = place()
    missing = lacking({})
    _report_damage(store)
    if missing:
        say(f"encoding {len(missing)} of {len(keys)} clip views")
    failed = _merged(encode(missing[here.rank :: here.world]))
    if here.world > 1:
        rest = lacking(failed)
        failed |= _merged(encode(rest[here.local_rank :: here.local_world]))
    if store.excess:
        say(f"{store.folder} is {store.excess / 1e9:.1f} GB above its limit, all of it in use; raise {LIMIT}")
    computed = sum(files[index].path not in failed for index, _ in missing)
    return Filled(computed, len(keys) - len(missing), failed)


def _merged(failed: dict[str, str]) -> dict[str, str]:
    """What failed in any process."""
    found = gather(failed)
    for part in found[1:]:
        for path in part.keys() - found[0].keys():
            say(f"left out: {path}: {part[path]}")
    return {path: reason for part in found for path, reason in part.items()}


def _encode(
    model: Classifier,
    files: Sequence[ClipFile],
    keys: dict[Request, str],
    plan: Plan,
    store: FeatureStore,
    device: torch.device,
    workers: int,
) -> dict[str, str]:
    """Encode and store some views; path and reason of the files that cannot be read."""
    failed: dict[str, str] = {}
    with bar("encoding", len(keys)) as advance:
        # clips come back in the order they were asked for
        loaded_clips = stream_clips(files, plan, workers, list(keys)) if keys else ()
        for (request, key), loaded in zip(keys.items(), loaded_clips, strict=True):
            advance(1)
            if loaded.clip is not None:
                store.put(key, encode_clip(model, loaded.clip, device))
            elif loaded.error is not None and files[request[0]].path not in failed:
                failed[files[request[0]].path] = str(loaded.error.reason)
                say(f"left out: {loaded.error}")
    return failed


def encode_again(
    model: Classifier,
    file: ClipFile,
    view: int | None,
    plan: Plan,
    store: FeatureStore,
    encoders: str,
    device: torch.device,
) -> dict[str, NDArray[np.float32]]:
    """One view whose features are gone from the store, cleared or damaged while they were in use.

    Returns:
        Per stream float32 (T, D), the same bits as before; the store holds them again.

    Raises:
        DataError: the file cannot be read any more either.
    """
    _report_damage(store)
    (loaded,) = stream_clips([file], plan, 0, [(0, view)])
    if loaded.clip is None:
        raise DataError(f"the features of {file.path} are gone from {store.folder}, and so is the clip: {loaded.error}")
    features = encode_clip(model, loaded.clip, device)
    store.put(feature_key(file.digest, plan, encoders, view), features)
    return features


def _report_damage(store: FeatureStore) -> None:
    """Once per damaged entry; it is made again next."""
    if store.damaged:
        say(f"{len(store.damaged)} stored features are damaged and are made again ({store.folder})")
        store.damaged.clear()


def standardise(
    model: Classifier,
    files: Sequence[ClipFile],
    plan: Plan,
    store: FeatureStore,
    encoders: str,
    workers: int,
    seed: int,
) -> None:
    """Set each stream's mean and deviation from plain training clips; a stream whose encoder is trained has none."""
    streams = [name for name in model.streams if name not in model.encoders or model.frozen]
    if not streams:
        return
    order = np.random.default_rng(seed).permutation(len(files))[:STANDARDISED_CLIPS]
    chosen = [files[int(i)] for i in np.sort(order)]
    clips: list[dict[str, NDArray[np.float32]]] = []
    if model.frozen:
        device = next(model.parameters()).device
        for file in chosen:
            found = store.get(feature_key(file.digest, plan, encoders, None))
            clips.append(found or encode_again(model, file, None, plan, store, encoders, device))
    else:
        read = (loaded.clip.inputs for loaded in stream_clips(chosen, plan, workers) if loaded.clip is not None)
        clips = [{name: np.asarray(inputs[name], dtype=np.float32) for name in streams} for inputs in read]
    for name in streams:
        vectors = torch.from_numpy(np.concatenate([clip[name] for clip in clips]))
        model.fit_standardisation(name, vectors.mean(dim=0), vectors.std(dim=0, correction=0))
