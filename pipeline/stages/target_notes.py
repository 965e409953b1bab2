"""Options that are on although a number that is learned does not follow them: what training says about that."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import Config


def target_notes(config: Config, durations: Sequence[float]) -> list[str]:
    """Sentences for the user; none where no number is learned.

    Args:
        config: of the training.
        durations: seconds of each training clip.
    """
    if not config.task.endswith("regression"):
        return []
    notes = []
    if moving := moved_by(config):
        notes.append(
            f"{' and '.join(moving)} moves what training clips show, and their values do not follow: right for counts "
            "and durations, wrong for positions, sizes, directions and speeds (docs/tasks.md)"
        )
    window = config.video.frames / config.video.fps
    longer = sum(duration > window for duration in durations)
    if config.task == "regression" and config.video.sampling == "rate" and longer:
        notes.append(
            f"{longer} of {len(durations)} training clips are longer than {window:.1f} s (video.frames / video.fps): "
            "training shows parts of them with the value of the whole; raise video.frames, or sample uniformly"
        )
    return notes


def moved_by(config: Config) -> list[str]:
    """Augmentations that are on and move what a number may be about."""
    augmentation = config.augmentation
    if config.encoder.frozen and augmentation.views == 1:
        return []
    drawn = {"crop": augmentation.crop < 1, "flip": augmentation.flip > 0, "rotate": augmentation.rotate > 0}
    return [f"augmentation.{name} {getattr(augmentation, name):g}" for name, on in drawn.items() if on]
