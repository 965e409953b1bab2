"""What an evaluation finds beside its scores: views, use of time, robustness, the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import RecurrentConfig
from pipeline.data.corruptions import CORRUPTIONS
from pipeline.errors import ConfigError
from pipeline.report.time_text import FROZEN, PLAIN, POOLING, SHUFFLED
from pipeline.stages import robustness as copies
from pipeline.stages.evaluate import Wanted, choose, evaluate
from pipeline.stages.pooling_baseline import pooling_config
from pipeline.stages.predict import Predictor
from pipeline.stages.scoring import Scored, score
from pipeline.stages.time_use import VARIANTS
from pipeline.stages.views import predict_views


@pytest.fixture(scope="module")
def scored(predictor: Predictor) -> Scored:
    return score(predictor, choose(predictor, None, "test").table, 0)


def test_one_view_is_the_prediction_itself_and_several_are_their_mean(predictor: Predictor, scored: Scored) -> None:
    files = scored.files[:4]
    one = predict_views(predictor, files, 0, 1, mirror=False)
    for look, own in zip(one, scored.answers, strict=False):
        assert np.array_equal(look.probabilities, own.probabilities)  # type: ignore[arg-type]
    three, again = (predict_views(predictor, files, 0, 3, mirror=False) for _ in range(2))
    assert len(three) == len(files)
    for look, same, alone in zip(three, again, one, strict=True):
        assert look.probabilities is not None and look.probabilities.sum() == pytest.approx(1)
        assert np.array_equal(look.probabilities, same.probabilities)  # type: ignore[arg-type]
        assert look.frames >= 2 * alone.frames
    changed = [not np.array_equal(a.probabilities, b.probabilities) for a, b in zip(one, three, strict=True)]  # type: ignore[arg-type]
    assert any(changed)


def test_mirror_images_are_for_models_that_learned_from_them(predictor: Predictor, scored: Scored) -> None:
    with pytest.raises(ConfigError, match="never saw a mirror image"):
        evaluate(predictor, None, wanted=Wanted(mirror=True), workers=0)
    config = predictor.card.config
    card = replace(predictor.card, config={**config, "augmentation": {**config["augmentation"], "flip": 0.5}})
    flipped = Predictor(predictor.model, card, predictor.device, predictor.digest)
    # no WebM: it has a random identifier, which would draw other moments each time, and of a short clip some twice
    one = [file for file in scored.files if file.path.endswith(".avi")][:1]
    (plain,) = predict_views(flipped, one, 0, 1, mirror=False)
    (both,) = predict_views(flipped, one, 0, 1, mirror=True)
    assert both.frames == 2 * plain.frames
    assert not np.array_equal(both.probabilities, plain.probabilities)  # type: ignore[arg-type]


def test_the_answer_to_a_mirror_image_is_turned_back(
    predictor: Predictor, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a mirror image exchanges two classes, what it is taken for says the other one of the clip."""
    first, second, *others = predictor.classes
    config = predictor.card.config
    changes = {"flip": 0.5, "flip_labels": [[first, second]]}
    card = replace(predictor.card, config={**config, "augmentation": {**config["augmentation"], **changes}})
    turned = Predictor(predictor.model, card, predictor.device, predictor.digest)
    seen: list[np.ndarray] = []
    real = Predictor.answer

    def answer(self: Predictor, clip: Any) -> Any:
        seen.append(real(self, clip))
        return seen[-1]

    monkeypatch.setattr(Predictor, "answer", answer)
    (both,) = predict_views(turned, scored.files[:1], 0, 1, mirror=True)
    plain, mirrored = seen
    order = [1, 0, *range(2, 2 + len(others))]
    assert not np.array_equal(mirrored, mirrored[order])
    np.testing.assert_allclose(both.probabilities, (plain + mirrored[order]) / 2, rtol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [({"precision": 1.5}, "at most 1"), ({"precision": 0}, "above 0"), ({"views": 0}, "once or more")],
)
def test_wishes_that_make_no_sense_are_refused(wanted: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Wanted(**wanted)


@pytest.mark.parametrize("wanted", [Wanted(views=2), Wanted(time=True), Wanted(robustness=True)])
def test_shuffled_clips_are_not_mixed_with_other_looks(predictor: Predictor, wanted: Wanted) -> None:
    with pytest.raises(ConfigError, match="leave out"):
        evaluate(predictor, None, shuffle=True, wanted=wanted)


@pytest.mark.parametrize("t", [1, 2, 5, 8])
def test_what_each_way_of_showing_a_clip_shows(t: int) -> None:
    shown = {name: order(t, "ab" * 32) for name, order in VARIANTS.items()}
    assert shown[PLAIN].tolist() == list(range(t)) and shown["reversed"].tolist() == list(range(t))[::-1]
    assert sorted(shown[SHUFFLED]) == list(range(t)) and shown[FROZEN].tolist() == [t // 2] * t
    half = (t + 1) // 2
    assert shown["first half"].tolist() == list(range(half)) and shown["last half"].tolist() == list(range(t // 2, t))
    assert len(shown["last half"]) == half and shown["every second"].tolist() == list(range(0, t, 2))


def test_the_page_has_everything_and_time_and_copies_are_of_the_same_clips(
    predictor: Predictor, tmp_path: Path
) -> None:
    wanted = Wanted(time=True, robustness=True)
    metrics = evaluate(predictor, None, out=tmp_path, workers=0, wanted=wanted)
    time, worse = metrics["time"], metrics["robustness"]
    assert [row["name"] for row in time["rows"]] == [*VARIANTS, POOLING]
    assert time["rows"][0]["score"] == metrics["top1"] and time["rows"][0]["cost"] == 0
    assert [row["name"] for row in worse["rows"]] == [copies.AS_THEY_ARE, *(one.name for one in CORRUPTIONS)]
    assert worse["clips"] == worse["of"] == 12 and worse["rows"][0]["score"] == metrics["top1"]
    names = {path.name for path in tmp_path.iterdir()}
    assert {"index.html", "metrics.json", "calibration.png", "risk.png", "time.png", "robustness.png"} <= names
    page = (tmp_path / "index.html").read_text()
    for heading in ("Is time used?", "Classes", "The most confident mistakes", "Calibration", "When to abstain",
                    "By length, size and source", "Robustness", "Readings of the test split"):  # fmt: skip
        assert f"{heading}</h2>" in page
    assert time["verdict"].split(":")[0] in page and "http://" not in page and "https://" not in page
    assert ("mistakes.jpg" in names) == bool(metrics["mistakes"])
    assert sum(row["clips"] for row in metrics["by"]["source"]) == 12


def test_the_baseline_is_pooling_on_frozen_encoders(make_config: Any) -> None:
    config = pooling_config(make_config(recurrent=RecurrentConfig("lstm", proj_size=4, zoneout=0.1 * 0)), 0)
    assert (config.recurrent.kind, config.recurrent.pooling, config.recurrent.proj_size) == ("none", "mean", 0)
    assert config.encoder.frozen and config.encoder.name == "compact" and config.augmentation.views == 1
    kept = pooling_config(make_config(recurrent=RecurrentConfig("gru", pooling="max", bidirectional=True)), 0)
    assert kept.recurrent.pooling == "max" and not kept.recurrent.bidirectional


def test_copies_are_of_a_bounded_number_of_clips_of_all_labels(scored: Scored, monkeypatch: Any) -> None:
    monkeypatch.setattr(copies, "CLIPS", 7)
    chosen, too_long = copies.choose_clips(scored)
    labels = [scored.rows["label"].iloc[i] for i in chosen]
    assert len(chosen) == 7 and chosen == sorted(chosen) and too_long == 0
    assert {labels.count(label) for label in set(labels)} == {2, 3} and chosen == copies.choose_clips(scored)[0]
    long = replace(scored, files=[replace(file, duration=31.0) for file in scored.files])
    assert copies.choose_clips(long) == ([], 12)
