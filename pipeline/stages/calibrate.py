"""Calibrate: the temperature at which a model's probabilities fit its validation clips, kept in its checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.model import checkpoint
from pipeline.model.losses import known
from pipeline.report.calibration import calibration, fit_temperature, rescaled
from pipeline.report.selective import thresholds
from pipeline.stages.distributed import gather, is_first, place
from pipeline.stages.predict import Predictor, load_predictor
from pipeline.stages.progress import say
from pipeline.stages.sources import Source


def calibrate(folder: Path, val: Source | None, device: torch.device) -> None:
    """Fit a checkpoint's temperature on the validation clips, and write it into its card.

    It has what was fitted, on how many answers, and what each confidence is worth there: the table from which a
    threshold for a wished precision is read, so that nobody needs the validation clips for it later.

    Args:
        folder: the checkpoint.
        val: the validation clips; None: there are none, and the probabilities stay as they are.
        device: where to compute.
    """
    predictor = load_predictor(folder, device)
    if predictor.model.numeric:
        return
    if val is None:
        say("the probabilities are not calibrated: there are no validation clips (data.val)")
        return
    answers = validation_answers(predictor, val)
    if answers is None or not is_first():
        return
    found = fitted(*answers)
    card = replace(predictor.card, extra={**predictor.card.extra, "calibration": found})
    checkpoint.save(folder, predictor.model.state_dict(), card)
    say(
        f"temperature {found['temperature']:.2f}: on the validation clips the calibration error goes from "
        f"{found['ece_before']:.3f} to {found['ece']:.3f}"
    )


@torch.inference_mode()
def validation_answers(predictor: Predictor, val: Source) -> tuple[np.ndarray, np.ndarray] | None:
    """Log-probabilities float64 (N, K) and labels int64 (N,) of all validation answers that have a label, in the order
    of one process however many divide them; None where there is none.
    """
    rows: list[tuple[int, list[list[float]], list[int]]] = []
    for number, batch in enumerate(val.batches(0, None)):
        given = known(batch.targets)
        if not given.any():
            continue
        moved = batch.to(predictor.device)
        logits = predictor.model(moved.inputs, moved.lengths).double().log_softmax(dim=-1).cpu()
        position = place().rank + number * place().world
        rows.append((position, logits[given].tolist(), batch.targets[given].tolist()))
    ordered = sorted(row for part in gather(rows) for row in part)
    logits = [one for _, part, _ in ordered for one in part]
    labels = [one for _, _, part in ordered for one in part]
    return (np.array(logits), np.array(labels, dtype=np.int64)) if labels else None


def fitted(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What the card keeps: `temperature`; `answers`, on how many it was fitted; `ece` and `log_loss` there, and
    `_before` what they were; `thresholds`, see `selective.thresholds`.
    """
    temperature = fit_temperature(logits, labels)
    plain = np.exp(logits)
    scaled = rescaled(plain, temperature)
    one_by_one = [str(number) for number in range(len(labels))]
    before, after = (calibration(p, labels, one_by_one) for p in (plain, scaled))
    return {
        "temperature": temperature,
        "answers": len(labels),
        "ece": after["ece"],
        "ece_before": before["ece"],
        "log_loss": after["log_loss"],
        "log_loss_before": before["log_loss"],
        "thresholds": thresholds(scaled.max(axis=1), scaled.argmax(axis=1) == labels),
    }
