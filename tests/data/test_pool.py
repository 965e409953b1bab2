from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import crew
from pipeline.data.pool import Lost, Pool
from pipeline.errors import Reason, UserError

TASKS = """
import ctypes, os, signal, sys, time
from pipeline.errors import Reason, VideoError

def square(x):
    return x * x

def pid_of(x):
    time.sleep(0.02)
    return os.getpid()

def slowest_first(x):
    time.sleep(0.3 if x == 0 else 0)
    return x

def touch(path):
    open(path, "w").close()
    return path

def modules(name):
    import albumentations
    return name in sys.modules, sys.path, os.environ["OMP_NUM_THREADS"]

def eat(megabytes):
    block = bytearray(1) * (megabytes << 20)
    time.sleep(0.5)
    return len(block) >> 20

def misbehave(how):
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "exit":
        os._exit(3)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if how == "hog":
        block = bytearray(1) * (400 << 20)
        time.sleep(600)
    if how == "no memory":
        raise MemoryError
    if how == "opencv memory":
        import cv2
        raise_from_opencv = cv2.error("no memory")
        raise_from_opencv.code = cv2.Error.StsNoMem
        raise raise_from_opencv
    if how == "video":
        raise VideoError("a.mp4", Reason.TOO_SHORT, "one frame")
    if how == "bug":
        raise KeyError("a bug")
    if how == "odd bug":
        class Odd(Exception):
            pass
        raise Odd("cannot travel")
    return how
"""

LOST = {
    "segfault": Lost(Reason.CRASHED, "SIGSEGV"),
    "abort": Lost(Reason.CRASHED, "SIGABRT"),
    "exit": Lost(Reason.CRASHED, "exit status 3"),
    "killed": Lost(Reason.OUT_OF_MEMORY, "killed by the system"),
    "hang": Lost(Reason.TIMED_OUT, "after 1.5 s"),
    "hog": Lost(Reason.OUT_OF_MEMORY, "over 100 MB"),
    "no memory": Lost(Reason.OUT_OF_MEMORY, "it asked for more than there is"),
    "opencv memory": Lost(Reason.OUT_OF_MEMORY, "it asked for more than there is"),
    "video": Lost(Reason.TOO_SHORT, "one frame"),
}
LIMITS = {"seconds": 1.5, "memory": 100}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module that workers find by the parent's sys.path alone."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "pool_tasks.py").write_text(TASKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        import pool_tasks  # type: ignore[import-not-found]

        yield pool_tasks
        del sys.modules["pool_tasks"]


@pytest.fixture(scope="module")
def pool(tasks: ModuleType) -> Iterator[Pool]:
    with Pool(2, **LIMITS) as shared:
        yield shared


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 40), st.integers(1, 9))
def test_results_come_in_the_order_of_the_items(pool: Pool, tasks: ModuleType, count: int, ahead: int) -> None:
    assert list(pool.run(tasks.square, range(count), ahead)) == [x * x for x in range(count)]


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 7), st.integers(0, 3))
def test_any_number_of_workers_gives_the_same(tasks: ModuleType, count: int, workers: int) -> None:
    with Pool(workers, **LIMITS) as own:
        assert list(own.run(tasks.square, range(count))) == [x * x for x in range(count)]
        assert len(own.pids) <= min(workers, count)


def test_a_slow_item_does_not_change_the_order(pool: Pool, tasks: ModuleType) -> None:
    assert list(pool.run(tasks.slowest_first, range(12), 12)) == list(range(12))


def test_no_more_than_ahead_is_done_before_it_is_read(pool: Pool, tasks: ModuleType, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number:02d}") for number in range(12)]
    run = pool.run(tasks.touch, paths, 3)
    for read in range(1, 10):
        next(run)
        assert wait_until(lambda read=read: len(os.listdir(tmp_path)) == min(12, read + 3))  # type: ignore[misc]
    run.close()


def test_both_workers_work_and_live_on_from_run_to_run(pool: Pool, tasks: ModuleType) -> None:
    first, second = (set(pool.run(tasks.pid_of, range(20))) for _ in range(2))
    assert len(first) == 2 and first == second == set(pool.pids)
    assert os.getpid() not in first


def test_what_goes_wrong_costs_one_item_and_says_why(pool: Pool, tasks: ModuleType) -> None:
    items = [how for bad in LOST for how in (bad, "good")]
    results = list(pool.run(tasks.misbehave, items))
    assert dict(zip(items, results, strict=True)) == LOST | {"good": "good"}
    assert results[1::2] == ["good"] * len(LOST)


def test_memory_that_a_worker_holds_already_does_not_count_for_the_next_item(tasks: ModuleType) -> None:
    with Pool(1, 60, 100) as own:
        assert list(own.run(tasks.eat, [60] * 3)) == [60] * 3
        assert list(own.run(tasks.eat, [150, 60])) == [Lost(Reason.OUT_OF_MEMORY, "over 100 MB"), 60]


def test_the_clock_of_an_item_starts_with_it(tmp_path: Path) -> None:
    """Neither the imports of its worker nor the items before it count."""
    (tmp_path / "slow_to_import.py").write_text(
        "import sys, time\n"
        "if 'pytest' not in sys.modules:\n"
        "    time.sleep(1.3)\n"
        "def nap(x):\n"
        "    time.sleep(0.4)\n"
        "    return x\n"
    )
    with pytest.MonkeyPatch.context() as patch, Pool(1, 1.0, 100) as own:
        patch.syspath_prepend(str(tmp_path))
        import slow_to_import  # type: ignore[import-not-found]

        assert list(own.run(slow_to_import.nap, range(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize(("how", "kind"), [("bug", KeyError), ("odd bug", RuntimeError)])
def test_a_bug_is_raised_in_its_place_with_the_workers_traceback(
    pool: Pool, tasks: ModuleType, how: str, kind: type[Exception]
) -> None:
    run = pool.run(tasks.misbehave, ["good", how, "good"])
    assert next(run) == "good"
    with pytest.raises(kind) as caught:
        next(run)
    assert any("pool_tasks.py" in note and "in misbehave" in note for note in caught.value.__notes__)
    assert list(pool.run(tasks.square, [3])) == [9]  # the pool goes on


def test_a_task_that_workers_cannot_import_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    with Pool(1, **LIMITS) as own, pytest.raises(Exception, match="pickle"):
        list(own.run(lambda x: x, [1]))
    (tmp_path / "here_alone.py").write_text("def task(x): return x")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        import here_alone  # type: ignore[import-not-found]
    with Pool(1, **LIMITS) as own, pytest.raises(ModuleNotFoundError, match="here_alone"):
        list(own.run(here_alone.task, [1]))


def test_a_run_that_is_given_up_leaves_no_work_behind(pool: Pool, tasks: ModuleType) -> None:
    run = pool.run(tasks.misbehave, ["good", "hang", "hang", "good"], 4)
    assert next(run) == "good"
    assert wait_until(lambda: len(pool.pids) == 2)
    time.sleep(0.3)
    before = pool.pids
    run.close()
    assert wait_until(lambda: gone(before), seconds=1)
    assert list(pool.run(tasks.square, [1, 2, 3])) == [1, 4, 9]


def test_a_new_run_ends_the_one_before(pool: Pool, tasks: ModuleType) -> None:
    old = pool.run(tasks.square, range(20))
    assert next(old) == 0
    new = pool.run(tasks.square, range(5))
    assert next(new) == 0
    with pytest.raises(RuntimeError, match="another run"):
        list(old)
    assert list(new) == [1, 4, 9, 16]


def test_two_pools_at_once(tasks: ModuleType) -> None:
    with Pool(1, **LIMITS) as one, Pool(1, **LIMITS) as two:
        pairs = list(zip(one.run(tasks.square, range(9)), two.run(tasks.misbehave, ["good"] * 9), strict=True))
    assert pairs == [(x * x, "good") for x in range(9)]


def test_a_worker_that_dies_idle_is_replaced_and_costs_nothing(pool: Pool, tasks: ModuleType) -> None:
    assert list(pool.run(tasks.square, range(4))) == [0, 1, 4, 9]
    killed = pool.pids
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not set(killed) & set(pool.pids))
    assert list(pool.run(tasks.square, range(4))) == [0, 1, 4, 9]


def test_a_worker_that_dies_as_its_next_item_is_sent_does_not_cost_it(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, killed = crew.Worker.ask, []

    def ask(worker: crew.Worker, run: crew.Run, number: int | None) -> None:
        if number == 2 and not killed:
            killed.append(worker.process.pid)
            worker.process.kill()
            worker.process.wait()
        real(worker, run, number)

    monkeypatch.setattr(crew.Worker, "ask", ask)
    with Pool(1, **LIMITS) as own:
        assert list(own.run(tasks.square, range(5))) == [0, 1, 4, 9, 16]
        assert killed and own.pids != killed


def test_an_answer_that_waits_for_a_busy_parent_was_in_time(tasks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that looks at the limits may be held up, by a library that is loaded, for longer than the limit."""
    real, held_up = crew.decode, []

    def decode(answer: list[bytearray]) -> object:
        value = real(answer)
        if value == 1 and not held_up:
            held_up.append(value)
            time.sleep(0.8)
        return value

    with Pool(2, seconds=0.5, memory=100) as own:
        list(own.run(tasks.square, range(4)))  # both are there and idle
        monkeypatch.setattr(crew, "decode", decode)
        assert list(own.run(tasks.slowest_first, [1, 0])) == [1, 0] and held_up
        assert list(own.run(tasks.misbehave, ["hang", "good"])) == [Lost(Reason.TIMED_OUT, "after 0.5 s"), "good"]


def test_no_worker_outlives_its_pool_not_even_as_a_zombie(tasks: ModuleType) -> None:
    own = Pool(2, 60, 100)
    run = own.run(tasks.misbehave, ["good", "hang", "hang"])
    assert next(run) == "good"
    while len(pids := own.pids) < 2:
        time.sleep(0.01)
    threads = threading.active_count()
    started = time.monotonic()
    del run, own
    assert gone(pids) and time.monotonic() - started < 4
    assert threading.active_count() == threads - 1


def test_a_closed_pool_says_so(tasks: ModuleType) -> None:
    own = Pool(1, **LIMITS)
    own.close()
    own.close()
    with pytest.raises(RuntimeError, match="closed"):
        list(own.run(tasks.square, [1]))


def test_without_workers_the_task_runs_here(tasks: ModuleType) -> None:
    own = Pool(0, **LIMITS)
    assert set(own.run(tasks.pid_of, [1, 2])) == {os.getpid()} and own.pids == []
    kinds = ["good", "video", "no memory"]
    assert list(own.run(tasks.misbehave, kinds)) == ["good", LOST["video"], LOST["no memory"]]
    with pytest.raises(KeyError):
        list(own.run(tasks.misbehave, ["bug"]))


def test_workers_know_no_torch_and_find_what_the_parent_finds(
    pool: Pool, tasks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (loaded, path, threads), *_ = pool.run(tasks.modules, ["torch"])
    assert not loaded and path == sys.path and threads == "1"
    (tmp_path / "json.py").write_text("raise SystemExit('the current folder is no place to import from')")
    monkeypatch.chdir(tmp_path)
    with Pool(1, **LIMITS) as own:
        assert list(own.run(tasks.square, [2])) == [4]


def test_where_no_process_can_be_started_the_error_is_one_line(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with Pool(1, **LIMITS) as own, pytest.raises(UserError, match=r"no decoding process can be started.*no-python"):
        list(own.run(tasks.square, [1]))


def test_workers_that_die_before_their_first_item_are_not_replaced_for_ever(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "BOOT", "raise SystemExit(7)")
    with Pool(2, **LIMITS) as own, pytest.raises(UserError, match="exit status 7"):
        list(own.run(tasks.square, [1, 2, 3]))


def test_starts_that_fail_now_and_then_are_tried_again(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flag = tmp_path / "fail"
    boot = f"import os\nif os.path.exists({str(flag)!r}):\n    os.unlink({str(flag)!r})\n    os._exit(7)\n"
    monkeypatch.setattr(crew, "BOOT", boot + crew.BOOT)
    with Pool(1, **LIMITS) as own:
        for _ in range(crew.START_ATTEMPTS + 1):
            flag.touch()
            assert list(own.run(tasks.square, [3])) == [9]
            assert not flag.exists()
            os.kill(own.pids[0], signal.SIGKILL)
            assert wait_until(lambda: not own.pids)


SCRIPT = """
import os, sys, time
sys.path.insert(0, {folder!r})
import pool_tasks
from pipeline.data.pool import Pool

# no `if __name__ == "__main__"`: the workers do not run this file again
pool = Pool(2, 60, 100)
run = pool.run(pool_tasks.misbehave, ["good", "hang", "hang"])
print(next(run), flush=True)
while len(pool.pids) < 2:
    time.sleep(0.01)
print(*pool.pids, flush=True)
print(*map(os.getpgid, pool.pids), flush=True)  # here: they may be gone as soon as the lines are read
{end}
"""
ENDINGS = {"reads on": "next(run)", "returns": "", "raises": "raise SystemExit(5)"}


@pytest.mark.parametrize(
    ("ending", "sent", "code"),
    [
        ("reads on", signal.SIGINT, -signal.SIGINT),
        ("reads on", signal.SIGKILL, -signal.SIGKILL),
        ("reads on", signal.SIGTERM, -signal.SIGTERM),
        ("returns", None, 0),
        ("raises", None, 5),
    ],
)
def test_workers_end_with_the_process_that_started_them(
    tasks: ModuleType, ending: str, sent: signal.Signals | None, code: int
) -> None:
    """Ctrl-C goes to the whole group of processes; SIGKILL and SIGTERM leave the parent no word."""
    folder = str(Path(tasks.__file__ or "").parent)
    script = textwrap.dedent(SCRIPT).format(folder=folder, end=ENDINGS[ending])
    with subprocess.Popen(
        [sys.executable, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdin and parent.stdout and parent.stderr
        parent.stdin.write(script)
        parent.stdin.close()
        assert parent.stdout.readline() == "good\n"
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        groups = {int(group) for group in parent.stdout.readline().split()}
        started = time.monotonic()
        if sent is not None:
            os.killpg(parent.pid, sent)
        errors = parent.stderr.read()
        assert parent.wait(timeout=20) == code
    assert groups and parent.pid not in groups  # Ctrl-C would interrupt a worker that starts, before it can ignore it
    assert wait_until(lambda: gone(pids)) and time.monotonic() - started < 10
    assert errors.count("Traceback") == (sent == signal.SIGINT)
