"""The laboratory: models that learn, cells that are remembered, pages and pictures that say what was measured."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import RecurrentConfig
from pipeline.errors import DataError


@pytest.fixture(scope="module")
def lab() -> dict[str, Any]:
    names = ("tasks", "sources", "fit", "hmm", "grid", "summary", "claims", "page", "plot", "timing")
    return {name: importlib.import_module(f"lab.{name}") for name in names}


@pytest.fixture(scope="module")
def script() -> Any:
    return importlib.import_module("gap_length")


def task_of(lab: dict[str, Any], name: str) -> Any:
    return next(task for task in lab["sources"].TASKS if task.name == name)


def row_of(lab: dict[str, Any], cell: Any, score: float) -> Any:
    task = task_of(lab, cell.task)
    return lab["grid"].Row(cell, lab["fit"].Fit(score, 9, 100, 0.5), lab["grid"].settings(task, cell.member))


def test_a_hidden_markov_model_tells_the_order_of_symbols(lab: dict[str, Any], tmp_path: Path) -> None:
    order = task_of(lab, "order")
    source = lab["sources"].open_source(order, 10, 0, tmp_path)
    train = lab["tasks"].temporal_order(10, 160, np.random.default_rng(1))
    few = lab["sources"].Fixed({"train": train, "val": source.held_out(1), "test": source.held_out(2)})
    assert lab["hmm"].symbol_count(train) == 8
    assert lab["hmm"].fit_hmm(order, few, 0).score > 0.95
    with pytest.raises(ValueError, match="no answer"):
        lab["hmm"].fit_hmm(task_of(lab, "adding"), source, 0)


def test_gaussian_models_read_numbers(lab: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 8, 3)).astype(np.float32)
    x[:, :4, 0] += 6 * y[:, None]
    x[:, 4:, 0] += 6 * (1 - y[:, None])  # the means over time are equal: only the order tells
    parts = lab["tasks"].Sequences(x, np.full(60, 8), y[:, None])
    found = lab["hmm"].models(parts, 4, 0)
    assert lab["hmm"].symbol_count(parts) is None
    assert lab["hmm"].accuracy(found, parts) > 0.95


def test_a_net_learns_and_the_same_seed_learns_the_same(lab: dict[str, Any], tmp_path: Path) -> None:
    task = task_of(lab, "order")
    source = lab["sources"].open_source(task, 10, 0, tmp_path)
    cell = lab["grid"].Cell("order", "lstm", "orthogonal", 0, 10)
    fits = [lab["fit"].fit(task, source, lab["grid"].configuration(cell, 10), 0, 150) for _ in range(2)]
    assert fits[0].score > 0.95 and fits[0].score == fits[1].score and fits[0].updates == fits[1].updates
    other = lab["fit"].fit(task, source, lab["grid"].configuration(cell, 10), 1, 3)
    assert other.score < 0.7 and other.updates == 3


def test_answers_come_from_the_last_steps_or_from_the_mean(lab: dict[str, Any]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3)
    lengths = torch.tensor([5, 4])
    net = lab["fit"].Net(3, 4, 2, RecurrentConfig(kind="none"))
    assert torch.equal(net(x, lengths), net.output(torch.stack([x[0, 3:5], x[1, 2:4]])))
    pooled = lab["fit"].Net(3, 4, 1, RecurrentConfig(kind="none"))
    torch.testing.assert_close(pooled(x, lengths)[1, 0], pooled.output(x[1, :4].mean(0)))
    rnn = lab["fit"].Net(3, 4, 1, RecurrentConfig(kind="rnn", hidden=6, layers=1, dropout=0.0))
    torch.testing.assert_close(rnn(x, lengths)[1, 0], rnn(x[1:, :4], lengths[1:])[0, 0])


def test_every_recurrence_of_the_configuration_takes_part(lab: dict[str, Any]) -> None:
    found = lab["grid"].members()
    assert {"hmm", "none", "rnn", "gru", "lstm", "peephole_lstm", "mlstm"} <= set(found) and "conv_lstm" not in found
    chains = lab["grid"].chains(lab["sources"].TASKS, ["hmm", "lstm"], 2, None)
    assert not [c for c in chains if c[0].member == "hmm" and c[0].task == "adding"]
    longest = {c[0].init: c[-1].gap for c in chains if c[0].task == "adding"}
    assert longest == dict.fromkeys(("default", "orthogonal", "no forget bias", "chrono"), 400)
    assert lab["grid"].configuration(lab["grid"].Cell("adding", "lstm", "chrono", 0, 50), 50).chrono_steps == 50


def test_a_chain_ends_at_chance_and_a_killed_run_goes_on(lab: dict[str, Any], tmp_path: Path) -> None:
    grid, order = lab["grid"], task_of(lab, "order")
    chain = [grid.Cell("order", "none", "", 0, gap) for gap in (10, 20)]
    path = tmp_path / "cells.jsonl"
    grid.append_row(path, row_of(lab, chain[0], 0.9))
    with path.open("ab") as file:
        file.write(b'{"cell": {"task": "or')  # killed while writing
    seen: list[tuple[int, bool]] = []

    def note(row: Any, remembered: bool) -> None:
        seen.append((row.cell.gap, remembered))

    rows, cut = grid.run([chain], [order], tmp_path, 1, time.monotonic() - 1, note)
    assert list(rows) == chain[:1] and cut == 1 and seen == [(10, True)]
    grid.append_row(path, row_of(lab, chain[1], 0.3))
    rows, cut = grid.run([chain], [order], tmp_path, 1, time.monotonic() - 1, note)
    assert [row.fit.score for row in rows.values()] == [0.9, 0.3] and cut == 0
    grid.append_row(path, row_of(lab, chain[0], 0.26))
    rows, cut = grid.run([chain], [order], tmp_path, 1, time.monotonic() - 1, note)
    assert list(rows) == chain[:1] and cut == 0  # at chance: the longer gap is not asked for


def test_rows_of_other_settings_are_not_used(lab: dict[str, Any], tmp_path: Path) -> None:
    cell = lab["grid"].Cell("order", "lstm", "default", 0, 10)
    row = row_of(lab, cell, 0.9)
    lab["grid"].append_row(tmp_path / "a", row)
    lab["grid"].append_row(tmp_path / "b", lab["grid"].Row(cell, row.fit, "hidden=7"))
    order = [task_of(lab, "order")]
    assert list(lab["grid"].read_rows(tmp_path / "a", order)) == [cell]
    assert lab["grid"].read_rows(tmp_path / "b", order) == {}
    assert lab["grid"].read_rows(tmp_path / "missing", order) == {}


def results_of(lab: dict[str, Any], scores: dict[tuple[str, str, str, int], tuple[float, ...]]) -> Any:
    rows = {}
    for (task, member, init, gap), values in scores.items():
        for seed, score in enumerate(values):
            cell = lab["grid"].Cell(task, member, init, seed, gap)
            rows[cell] = row_of(lab, cell, score)
    tasks = [task for task in lab["sources"].TASKS if task.name in {key[0] for key in scores}]
    return lab["summary"].Results(tasks, rows, 2, None, {"rnn": 0.5, "lstm": 1.0, "gru": 0.8})


def test_points_reach_and_skill(lab: dict[str, Any]) -> None:
    results = results_of(
        lab,
        {
            ("order", "rnn", "default", 10): (1.0, 1.0), ("order", "rnn", "default", 20): (0.26, 0.99),
            ("order", "rnn", "default", 50): (0.9,), ("order", "lstm", "default", 10): (0.5, 0.5),
        },
    )  # fmt: skip
    # seed 0 was at chance with 20 steps, so 50 and 100 count as chance; its row there belongs to seed 0
    points = results.points(results.tasks[0], ("rnn", "default"))
    assert [(p.gap, p.assumed, p.seeds) for p in points] == [(10, 0, 2), (20, 0, 2), (50, 0, 1), (100, 1, 1)]
    assert points[1].mean == pytest.approx(0.625) and (points[1].low, points[1].high) == (0.26, 0.99)
    assert results.solved(results.tasks[0], ("rnn", "default")) == 10
    assert results.solved(results.tasks[0], ("lstm", "default")) is None
    assert results.skill(("lstm", "default"), results.tasks) == pytest.approx(1 / 3)
    table = lab["page"].summary_table(results)
    assert "| rnn | default | 100 | 0.50 |" in table and "| lstm | default | 100 | 1.00 | 0.33 | none |" in table
    assert "0.62 (0.26 to 0.99)" in lab["page"].score_table(results, results.tasks[0])
    flat = lab["page"].flat(results)
    assert flat["order/rnn/default/gap_20"] == 0.625 and flat["time/gru"] == 0.8


def test_claims_follow_the_numbers(lab: dict[str, Any]) -> None:
    claims = lab["claims"]
    interval = {
        ("interval", kind, init, gap): (score, score)
        for kind, score in (("lstm", 0.6), ("peephole_lstm", 0.9))
        for init in ("default", "orthogonal")
        for gap in (5, 10)
    }  # fmt: skip
    assert claims.peepholes(results_of(lab, interval)).startswith("Confirmed: with peepholes against without")
    swapped = {(t, "lstm" if k != "lstm" else "peephole_lstm", i, g): v for (t, k, i, g), v in interval.items()}
    assert claims.peepholes(results_of(lab, swapped)).startswith("Not confirmed")
    alike = dict.fromkeys(interval, (0.7, 0.7))
    assert claims.peepholes(results_of(lab, alike)).startswith("Not confirmed")
    starts = {("order", "lstm", i, 10): (0.9, 0.9) for i in ("default", "no forget bias", "orthogonal", "chrono")}
    part = starts | {("digits", "lstm", "default", 0): (0.5, 0.5)}  # a run that was cut short
    assert "no forget bias 0.87 (order 0.87)" in claims.initialisation(results_of(lab, part))
    rnn = {("order", "rnn", i, g): (1.0, 1.0) for i in ("default", "orthogonal") for g in (10, 20, 50)}
    assert claims.short_memory(results_of(lab, rnn)).startswith("Not confirmed: as PyTorch starts it, it solves")
    rnn |= {("order", "rnn", "default", g): (0.3, 0.3) for g in (20, 50)}
    assert "in 0 of 1 tasks" in claims.short_memory(results_of(lab, rnn))
    adding = {
        ("adding", kind, init, 400): (score, score)
        for kind, score in (("lstm", 0.1), ("gru", 0.99)) for init in ("default", "orthogonal", "chrono")
    }  # fmt: skip
    said = claims.published(results_of(lab, adding))
    assert said.startswith("Confirmed, at T = 400") and "lstm default 0.1500, lstm orthogonal 0.1500" in said
    both = {("digits", k, i, 0): (s, s) for k, s in (("lstm", 0.9), ("gru", 0.5)) for i in ("default", "orthogonal")}
    assert claims.gru_or_lstm(results_of(lab, both)).startswith("Confirmed: a GRU's training step takes 0.80 times")
    assert "Not run." in claims.verdicts(results_of(lab, both))


def test_the_page_keeps_what_people_wrote(lab: dict[str, Any], tmp_path: Path) -> None:
    page, path = lab["page"], tmp_path / "page.md"
    path.write_text(f"# Title\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    for _ in range(2):
        page.fill_page(path, "new\n")
        assert path.read_text() == f"# Title\n{page.BEGIN}\nnew\n{page.END}\nafter\n"
    path.write_text("no marks")
    with pytest.raises(DataError, match="must each stand there once"):
        page.fill_page(path, "new")
    with pytest.raises(DataError, match="cannot be read"):
        page.fill_page(tmp_path / "missing.md", "new")


def test_times_are_ratios_to_the_lstm(lab: dict[str, Any]) -> None:
    found = lab["timing"].time_ratios(["rnn", "lstm"], repeats=3)
    assert found["lstm"] == 1.0 and found["rnn"] > 0


def test_one_member_and_one_task_from_command_to_page(
    lab: dict[str, Any],
    script: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(script, "time_ratios", lambda kinds: dict.fromkeys(kinds, 1.0))
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(f"{lab['page'].BEGIN}\n{lab['page'].END}\n")
    out = tmp_path / "out"
    tasks = tuple(task for task in lab["sources"].TASKS if task.name == "digits")
    monkeypatch.setattr(script, "TASKS", tuple(script.replace(task, updates=20) for task in tasks))
    arguments = ["--members", "none", "rnn", "--gaps", "0", "--seeds", "1", "--processes", "1", "--json"]
    arguments += ["--out", str(out), "--page", str(page)]
    assert script.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0.1 < found["digits/none/gap_0"] < 0.9 and found["digits/rnn/orthogonal/gap_0"] > 0.1
    assert "| rnn | orthogonal |" in page.read_text() and "### What people say" in page.read_text()
    assert (page.parent / "img" / "gap_length.png").read_bytes() == (out / "gap_length.png").read_bytes()
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("gap_length").experiment_id])
    assert run.data.metrics["digits/none/gap_0"] == found["digits/none/gap_0"]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"gap_length.md", "gap_length.png"}
    assert run.data.params["digits.updates"] == "20"
    cells = (out / "full" / "cells.jsonl").read_bytes()
    assert script.main(arguments) == 0
    assert (out / "full" / "cells.jsonl").read_bytes() == cells  # all is remembered, nothing was trained again
    assert json.loads(capsys.readouterr().out)["digits/none/gap_0"] == found["digits/none/gap_0"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "addition"], "there is no task 'addition'; choose from adding"),
        (["--members", "lstn"], "there is no member 'lstn'"),
        (["--seeds", "0"], "must be above 0"),
        (["--gaps", "7"], "none of the tasks has one of these gaps"),
        (["--quick", "--page", "docs/gap_length.md"], "leave out --page"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(
    script: Any, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
