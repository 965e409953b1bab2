"""Clips mixed with each other while training: mixup and cutmix.

Zhang et al., mixup: Beyond Empirical Risk Minimization (2018): every number of a clip is a weighted mean of two clips',
and the loss is that of both classes, weighted alike. Yun et al., CutMix (2019): one part of a clip is taken from
another, and the classes weigh as much as their parts are large.

A mixed clip is as long as its first one. The second is read at the same share of its own length, so that the whole of
it meets the whole of the first, and no moment is half empty. Where both are equally long, as sampled moments mostly
are, this is moment by moment. (Cutting both to the shorter one would cost the longer clip its end, which may be what
its class is about.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.config import TrainingConfig
from pipeline.data.batches import Batch
from pipeline.model.recurrent import valid_mask

MIXING = 2
"""Sets the random numbers of this file apart from those of `epoch_order` and `FeatureSource`."""


@dataclass(kw_only=True)
class MixedBatch(Batch):
    """A batch whose clips are mixed when it gets to its device: frames travel as bytes.

    Attributes:
        partners: int64 (B), the second clip of each, by its place in the batch.
        others: int64 (B), the second clips' classes.
        shares: float32 (B), how much of the first clip there is, and how much its class weighs.
        own: what is left of the first clip. Mixup: its weight, float (). Cutmix: where it is seen, a span bool (B, T)
            or a box bool (1, 1, 1, S, S). None: the clips are mixed.
    """

    partners: Tensor
    others: Tensor
    shares: Tensor
    own: Tensor | None

    def to(self, device: torch.device) -> MixedBatch:
        """The mixed batch on a device."""
        moved = super().to(device)
        others, shares = self.others.to(device), self.shares.to(device)
        inputs = moved.inputs if self.own is None else {name: self._mixed(x) for name, x in moved.inputs.items()}
        return replace(self, inputs=inputs, targets=moved.targets, others=others, shares=shares, own=None)

    def _mixed(self, x: Tensor) -> Tensor:
        """One stream of the clips, (B, T, ...), on its device."""
        assert self.own is not None
        places = torch.arange(x.shape[1]) + 0.5
        ratios = self.lengths[self.partners] / self.lengths
        moments = (places * ratios.unsqueeze(1)).long().clamp(max=x.shape[1] - 1)  # those in the padding are not kept
        second = x[self.partners.unsqueeze(1).to(x.device), moments.to(x.device)]
        own = self.own.to(x.device)
        if own.ndim == 0:
            mixed = torch.lerp(second.float(), x.float(), own)
        else:
            mixed = torch.where(_as_wide(own, x) if own.ndim == 2 else own, x, second)
        return mixed * _as_wide(valid_mask(self.lengths, x.shape[1], x.device), x)


def mixed(batches: Iterable[Batch], settings: TrainingConfig, seed: int, epoch: int) -> Iterator[Batch]:
    """An epoch's batches, each clip with a second one from its batch; a function of seed, epoch and the batch's number.

    With both `mixup` and `cutmix` each batch draws one of them.
    """
    ways = [way for way, alpha in ((_mixup, settings.mixup), (_cutmix, settings.cutmix)) if alpha]
    alphas = [alpha for alpha in (settings.mixup, settings.cutmix) if alpha]
    for number, batch in enumerate(batches):
        rng = np.random.default_rng([seed, epoch, number, MIXING])
        chosen = int(rng.integers(len(ways)))
        share = float(rng.beta(alphas[chosen], alphas[chosen]))
        partners = torch.from_numpy(rng.permutation(len(batch.targets)))
        if not len(partners):  # none of its files could be read
            yield batch
            continue
        own, shares = ways[chosen](batch, share, rng)
        plain = {field.name: getattr(batch, field.name) for field in fields(Batch)}
        yield MixedBatch(**plain, partners=partners, others=batch.targets[partners], shares=shares, own=own)


def _mixup(batch: Batch, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """`own` and `shares` of a `MixedBatch`."""
    return torch.tensor(share, dtype=torch.float32), torch.full((len(batch.targets),), share)


def _cutmix(batch: Batch, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A box of the frames at all moments where every stream has frames. Vectors have no place for a box: there it is a
    span of moments, in all streams, so that they tell of the same clip at each.
    """
    if all(x.ndim == 5 for x in batch.inputs.values()):
        size = next(iter(batch.inputs.values())).shape[-1]
        own = _box(size, share, rng)
        return own, own.float().mean().expand(len(batch.targets))
    longest = int(batch.lengths.max())
    own = torch.ones(len(batch.lengths), longest, dtype=torch.bool)
    for row, length in zip(own, batch.lengths.tolist(), strict=True):
        cut = round((1 - share) * length)
        start = int(rng.integers(length - cut + 1))
        row[start : start + cut] = False
    counts = (own & valid_mask(batch.lengths, longest, own.device)).sum(1)
    return own, counts / batch.lengths


def _box(size: int, share: float, rng: np.random.Generator) -> Tensor:
    """A frame as `MixedBatch.own`: False in a square around a random point that has the rest of the area, less what
    falls out.
    """
    side = math.sqrt(1 - share) * size
    own = torch.ones(1, 1, 1, size, size, dtype=torch.bool)
    top, left = (rng.random(2) * size - side / 2).tolist()
    rows, columns = (slice(max(round(edge), 0), max(round(edge + side), 0)) for edge in (top, left))
    own[..., rows, columns] = False
    return own


def _as_wide(mask: Tensor, x: Tensor) -> Tensor:
    """Per moment (B, T), for a stream (B, T, ...)."""
    return mask.view(*mask.shape, *[1] * (x.ndim - 2))
