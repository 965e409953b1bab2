"""What people repeat about recurrent networks, held against the run: rules that read numbers and write sentences."""

from __future__ import annotations

from lab.summary import Results, Variant
from lab.tasks import ADDING_VARIANCE, Task

RNN, GRU, LSTM = ("rnn", "default"), ("gru", "default"), ("lstm", "default")
OURS = "orthogonal"
SHORT = 10
"""Steps beyond which plain recurrent networks are said to lose what they saw."""
CLEAR = 0.03
"""A difference in mean score or skill below this is called none: three seeds do not tell more."""
PUBLISHED = {"lstm": 0.164, "gru": 5.3e-5, "rnn": 0.177}
"""Losses of the adding problem at T = 600, Bai et al. (2018), table 1, from a secondary copy."""


def verdicts(results: Results) -> str:
    """A paragraph per claim; one whose cells were not run says so."""
    claims = (
        ("Vanilla RNNs lose what lies more than about 10 steps back", short_memory(results)),
        ("An LSTM is less sensitive to the gap than an RNN or a hidden Markov model", sensitivity(results)),
        ("A GRU is faster, an LSTM stronger", gru_or_lstm(results)),
        ("Peepholes time intervals", peepholes(results)),
        ("The forget bias and chrono initialisation matter", initialisation(results)),
        ("An LSTM as PyTorch starts it fails the adding problem at T = 600, a GRU solves it", published(results)),
    )
    return "\n\n".join(f"**{claim}.** {text or 'Not run.'}" for claim, text in claims)


def short_memory(results: Results) -> str:
    """The longest gap that an RNN solves in each task, as PyTorch starts it and as we do."""
    said, beyond = [], 0
    for start in ("default", OURS):
        parts = []
        for task in results.tasks:
            if not results.points(task, ("rnn", start)):
                continue
            reach = results.solved(task, ("rnn", start))
            beyond += start == "default" and reach is not None and reach > SHORT
            parts.append(f"{task.name} {reach if reach is not None else 'none'}")
        if parts:
            said.append(f"started {start}, the longest gaps solved are {', '.join(parts)}")
    if len(said) < 2:
        return ""
    count = sum(bool(results.points(task, RNN)) for task in results.tasks)
    word = "Not confirmed" if beyond > count / 2 else "Partly" if beyond else "Confirmed"
    solved = f"it solves a gap of more than {SHORT} in {beyond} of {count} tasks"
    return f"{word}: as PyTorch starts it, {solved}; {'; '.join(said)}."


def sensitivity(results: Results) -> str:
    """Loss of skill from the shortest to the longest gap, over the tasks that all three can be tried with."""
    shared = [task for task in results.tasks if task.hmm]
    lost = {}
    for name, variant in (("LSTM", ("lstm", OURS)), ("RNN", ("rnn", OURS)), ("HMM", ("hmm", ""))):
        values = [_lost(results, task, variant) for task in shared]
        known = [value for value in values if value is not None]
        if len(known) < len(shared) or not known:
            return ""
        lost[name] = sum(known) / len(known), known
    word = _word(lost["LSTM"][0] < lost["RNN"][0] - CLEAR, lost["LSTM"][0] < lost["HMM"][0] - CLEAR)
    text = "; ".join(
        f"{name} {mean:.2f} ({', '.join(f'{task.name} {v:.2f}' for task, v in zip(shared, values, strict=True))})"
        for name, (mean, values) in lost.items()
    )
    return f"{word}: from the shortest gap to the longest, both nets started {OURS}, the score falls by {text}."


def _lost(results: Results, task: Task, variant: Variant) -> float | None:
    points = results.points(task, variant)
    return points[0].mean - points[-1].mean if len(points) > 1 else None


def gru_or_lstm(results: Results) -> str:
    """Time of a step, and skill over all tasks, as both are started by us and by PyTorch."""
    if "gru" not in results.times:
        return ""
    faster = results.times["gru"]
    skills = {
        (kind, init): results.skill((kind, init), results.tasks)
        for kind in ("gru", "lstm")
        for init in ("default", OURS)
    }
    if None in skills.values():
        return ""
    stronger = all((skills["lstm", init] or 0) > (skills["gru", init] or 0) + CLEAR for init in ("default", OURS))
    text = "; ".join(
        f"started {i}: LSTM {skills['lstm', i]:.2f}, GRU {skills['gru', i]:.2f}" for i in ("default", OURS)
    )
    word = _word(faster < 1, stronger)
    return f"{word}: a GRU's training step takes {faster:.2f} times an LSTM's here; skill over all tasks, {text}."


def peepholes(results: Results) -> str:
    """Scores of the interval task, with peepholes and without."""
    task = results.task("interval")
    if task is None:
        return ""
    said, better = [], []
    for start in ("default", OURS):
        plain, peep = ({p.gap: p for p in results.points(task, (kind, start))} for kind in ("lstm", "peephole_lstm"))
        shared = sorted(plain.keys() & peep.keys())
        if not shared:
            return ""
        better += [peep[gap].mean - plain[gap].mean for gap in shared]
        scores = ", ".join(f"N = {gap}: {peep[gap].mean:.2f} against {plain[gap].mean:.2f}" for gap in shared)
        said.append(f"started {start}, {scores}")
    clear, mean = max(better) > CLEAR, sum(better) / len(better) > CLEAR
    word = _word(clear, mean)
    return f"{word}: with peepholes against without, {'; '.join(said)}."


def initialisation(results: Results) -> str:
    """Skill of the LSTM from each start, over all tasks and in each."""
    starts = ("default", "no forget bias", OURS, "chrono")
    skills = {start: results.skill(("lstm", start), results.tasks) for start in starts}
    if None in skills.values():
        return ""
    said = []
    for start in starts:
        found = {task.name: results.skill(("lstm", start), [task]) for task in results.tasks}
        each = ", ".join(f"{name} {value:.2f}" for name, value in found.items() if value is not None)
        said.append(f"{start} {skills[start]:.2f} ({each})")
    bias = (skills[OURS] or 0) > (skills["no forget bias"] or 0) + CLEAR
    chrono = (skills["chrono"] or 0) > (skills["default"] or 0) + CLEAR
    return f"{_word(bias, chrono)}: skill of the LSTM from each start: {'; '.join(said)}."


def published(results: Results) -> str:
    """Mean squared errors of the adding problem at the longest gap that LSTM and GRU were both tried with."""
    task = results.task("adding")
    if task is None:
        return ""
    errors: dict[Variant, dict[int, float]] = {}
    marks: dict[Variant, dict[int, str]] = {}
    for variant in ((kind, init) for kind in ("lstm", "gru") for init in ("default", OURS, "chrono")):
        points = results.points(task, variant)
        errors[variant] = {p.gap: (1 - p.mean) * ADDING_VARIANCE for p in points}
        marks[variant] = {p.gap: "†" if p.assumed == p.seeds else "" for p in points}
    gaps = set.intersection(*(set(found) for found in errors.values()))
    if not gaps:
        return ""
    gap = max(gaps)
    fails, solves = (errors[kind, "default"][gap] for kind in ("lstm", "gru"))
    word = _word(fails > 0.5 * ADDING_VARIANCE, solves < (1 - task.solved) * ADDING_VARIANCE)
    text = ", ".join(f"{' '.join(variant)} {found[gap]:.4f}{marks[variant][gap]}" for variant, found in errors.items())
    return (
        f"{word}, at T = {gap} and after at most {task.updates} updates: mean squared error {text} (knowing nothing: "
        f"{ADDING_VARIANCE:.4f}; †: at chance with a shorter gap already). Published at T = 600, after more training: "
        f"LSTM {PUBLISHED['lstm']}, GRU {PUBLISHED['gru']}, RNN {PUBLISHED['rnn']} (Bai et al. 2018, table 1, from a "
        "secondary copy)."
    )


def _word(*facts: bool) -> str:
    """Confirmed where all facts hold, not confirmed where none does."""
    return "Confirmed" if all(facts) else "Partly" if any(facts) else "Not confirmed"
