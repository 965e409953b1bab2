"""What training minimises, task by task. What has no target weighs exactly nothing, in the value and the gradient."""

from __future__ import annotations

from torch import Tensor, nn


def known(targets: Tensor) -> Tensor:
    """bool, True where there is a target: a class that is not -1, or a number that is not NaN."""
    return ~targets.isnan() if targets.is_floating_point() else targets >= 0


def class_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats, the mean over all clips or moments that have a label, each counting the same.

    Args:
        logits: float (..., K).
        targets: int64 (...), -1 in the padding and where there is no label.
        weights: float (K); the mean is weighted then.
        smoothing: share of the target that is spread over all classes (Szegedy et al. 2016).

    Returns:
        A scalar; 0 where nothing has a label.
    """
    # Selected first: a masked logit that is not a number would still poison the gradient.
    labelled = known(targets)
    logits, targets = logits[labelled], targets[labelled]
    if not len(targets):
        return logits.sum()
    return nn.functional.cross_entropy(logits, targets, weights, label_smoothing=smoothing)


def mixed_class_loss(
    logits: Tensor,
    targets: Tensor,
    others: Tensor,
    shares: Tensor,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy in nats of clips of two classes each, the mean over clips (Zhang et al. 2018).

    Args:
        logits: float (B, K).
        targets, others: int64 (B), the two classes of each clip.
        shares: float (B), how much the first one weighs; the second weighs the rest.
        weights, smoothing: as in `class_loss`, which this equals where the shares are 1.

    Returns:
        A scalar.
    """
    if weights is None:
        weights = logits.new_ones(logits.shape[-1])
    first, second = (
        nn.functional.cross_entropy(logits, classes, weights, reduction="none", label_smoothing=smoothing)
        for classes in (targets, others)
    )
    mass = shares * weights[targets] + (1 - shares) * weights[others]
    return (shares * first + (1 - shares) * second).sum() / mass.sum()


def number_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Huber loss (1964), the mean over all clips or moments whose target is known, each counting the same.

    Half the square up to an error of one standard deviation of the training targets, linear beyond: single wild
    targets do not rule the gradient.

    Args:
        outputs: float (..., 1), standardised.
        targets: float (...), standardised, NaN in the padding and where nothing is known.

    Returns:
        A scalar; 0 where nothing is known.
    """
    given = known(targets)
    outputs, targets = outputs.squeeze(-1)[given], targets[given]
    if not len(targets):
        return outputs.sum()
    return nn.functional.huber_loss(outputs, targets)
