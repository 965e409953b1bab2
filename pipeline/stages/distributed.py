"""Several processes that train together: who is who, how they meet, and what they tell each other.

`torchrun` starts them and numbers them in their environment. Without it there is one process, and everything here does
nothing. What travels is JSON and bytes of tensors, never pickle.

A process may wait for another for hours, while that one decodes a data set. So a wait has no end as long as all others
give signs of life, and ends with an error when one of them has failed or falls silent.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from pipeline.errors import DistributedError, UserError

TIMEOUT = timedelta(minutes=10)
"""For the processes to meet, and for the gradient of a step to come from all of them."""
SIGN_SECONDS = 5.0
"""Between two signs of life."""
SILENT_SECONDS = 120.0
"""Without one, a process counts as lost."""
ENDLESS = timedelta(days=30)


@dataclass(frozen=True)
class Place:
    """Where this process stands: its number among all `world` of them, and among those of its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


@dataclass
class _Room:
    """Where the processes of a training meet.

    Attributes:
        store: keys and values that all see.
        control: the group for everything but gradients.
        heard: per process its last sign of life, and when it was new.
    """

    place: Place
    store: dist.Store
    control: dist.ProcessGroup
    heard: dict[int, tuple[bytes, float]] = field(default_factory=dict)


_room: _Room | None = None


def place() -> Place:
    """Among the processes that this one has joined; one process where there are none."""
    return Place() if _room is None else _room.place


def started() -> Place:
    """As the environment says: what `torchrun` and others set, RANK and WORLD_SIZE. One process where it says nothing.

    Raises:
        DistributedError: what it says is no place.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Place()
    try:
        names = ("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")
        found = Place(*(int(os.environ.get(name, default)) for name, default in names))
    except ValueError as error:
        raise DistributedError(f"RANK and WORLD_SIZE in the environment are no numbers ({error})") from None
    if not 0 <= found.rank < found.world or not 0 <= found.local_rank < found.local_world:
        raise DistributedError(f"RANK {found.rank} is none of WORLD_SIZE {found.world}; start with torchrun")
    return found


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return place().rank == 0


def mine() -> slice:
    """The part of any list that is this process's: each element belongs to exactly one."""
    here = place()
    return slice(here.rank, None, here.world)


def alone(what: str) -> None:
    """For work that one process does.

    Raises:
        DistributedError: there are several.
    """
    if started().world > 1:
        raise DistributedError(f"{what} runs in one process; start it without torchrun")


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Meet the other processes, and part when all are done; within it the functions below work.

    Within another one, and where there is one process, it does nothing.

    Args:
        device: gradients travel by NCCL between GPUs, by gloo between CPUs.

    Raises:
        DistributedError: the others do not come, or one of them fails.
    """
    global _room
    here = started()
    if here.world == 1 or _room is not None:
        yield
        return
    if device.type not in ("cpu", "cuda"):
        raise DistributedError(f"several processes train on CPUs or NVIDIA GPUs, not on {device.type}")
    _room = _meet(here, device)
    ended = threading.Event()
    signs = threading.Thread(target=_live, args=(_room, ended), daemon=True)
    signs.start()
    failed = True
    try:
        yield
        barrier()
        failed = False
    except BaseException as error:
        with suppress(RuntimeError):  # the store may have gone with the process that held it
            if not isinstance(error, DistributedError | KeyboardInterrupt):
                text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                _room.store.set("failed", f"process {here.rank} failed: {text}"[:1000])
        raise
    finally:
        ended.set()
        signs.join()
        _part(_room.control, failed)
        _room = None


def _meet(here: Place, device: torch.device) -> _Room:
    """Under a name that no earlier meeting had: a restarted job may find the store of its former life."""
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))  # type: ignore[no-untyped-call]
        store.set_timeout(TIMEOUT)
        meeting = dist.PrefixStore(_name_meeting(here, store), store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT, store=meeting, rank=here.rank, world_size=here.world)
        meeting.set(f"alive/{here.rank}", "0")
        control = dist.new_group(backend="gloo", timeout=ENDLESS)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DistributedError(f"the {here.world} processes do not find each other: {reason}") from error
    assert isinstance(control, dist.ProcessGroup)
    room = _Room(here, meeting, control)
    _wait(room, dist.barrier(group=control, async_op=True))
    return room


def _part(control: dist.ProcessGroup, failed: bool) -> None:
    """Take the groups apart, or their threads would abort the process at its end."""
    dist.destroy_process_group(control)
    if not (failed and dist.get_backend() == "nccl"):  # which would wait for the others
        dist.destroy_process_group()


def _name_meeting(here: Place, store: dist.Store) -> str:
    """The first process names the meeting, and answers each other one's own question: old answers fit no new question.

    The number of restarts would not do: machines that joined at different times count differently.
    """
    if here.rank > 0:
        question = uuid.uuid4().hex
        store.set(f"question/{here.rank}", question)
        store.wait([f"answer/{question}"], TIMEOUT)
        name = store.get(f"answer/{question}").decode()
        store.set(f"{name}/{here.rank}", "here")
        return name
    name, until = uuid.uuid4().hex, time.monotonic() + TIMEOUT.total_seconds()
    while missing := [rank for rank in range(1, here.world) if not store.check([f"{name}/{rank}"])]:
        for rank in missing:
            if store.check([f"question/{rank}"]):
                store.set(f"answer/{store.get(f'question/{rank}').decode()}", name)
        if time.monotonic() > until:
            raise RuntimeError(f"process {missing[0]} did not come")
        time.sleep(0.02)
    return name


def _live(room: _Room, ended: threading.Event) -> None:
    """Give signs of life until the end."""
    number = 0
    while not ended.wait(SIGN_SECONDS):
        number += 1
        with suppress(RuntimeError):  # whoever waits for this process sees it fall silent
            room.store.set(f"alive/{room.place.rank}", str(number))


def _wait(room: _Room, work: dist.Work | None) -> None:
    """Until something that all do is done; signals are heard meanwhile."""
    assert work is not None
    pause = 1e-4
    looked = time.monotonic()
    try:
        while not work.is_completed():
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
            if time.monotonic() - looked > SIGN_SECONDS:
                _look_around(room)
                looked = time.monotonic()
        work.wait()
    except RuntimeError as error:
        raise stopped(error) from error


def _look_around(room: _Room) -> None:
    """Raises DistributedError where another process has failed or fallen silent."""
    now = time.monotonic()
    if room.store.check(["failed"]):
        raise DistributedError(room.store.get("failed").decode())
    for rank in range(room.place.world):
        sign = room.store.get(f"alive/{rank}")
        before, since = room.heard.get(rank, (None, now))
        room.heard[rank] = (sign, since if sign == before else now)
        if now - room.heard[rank][1] > SILENT_SECONDS:
            raise DistributedError(f"process {rank} has given no sign of life for {SILENT_SECONDS:.0f} s")


def stopped(error: RuntimeError) -> DistributedError:
    """What a failed exchange means, in the words of the process that failed where it left some."""
    if _room is not None:
        with suppress(RuntimeError):
            if _room.store.check(["failed"]):
                return DistributedError(_room.store.get("failed").decode())
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DistributedError(f"another process of this training ended without a word, or cannot be reached ({reason})")


def barrier() -> None:
    """Wait until all are here."""
    if _room is not None:
        _wait(_room, dist.barrier(group=_room.control, async_op=True))


def tensor_from_first(tensor: torch.Tensor) -> None:
    """The first process's values into this process's tensor, on the CPU, of the same shape and dtype."""
    if _room is not None:
        _wait(_room, dist.broadcast(tensor, 0, group=_room.control, async_op=True))


def bytes_from_first(work: Callable[[], bytes]) -> bytes:
    """What the first process made of `work`; the others wait and do nothing."""
    if _room is None:
        return work()
    found = work() if is_first() else b""
    size = torch.tensor([len(found)])
    tensor_from_first(size)
    content = _as_tensor(found) if is_first() else torch.empty(int(size), dtype=torch.uint8)
    tensor_from_first(content)
    return found if is_first() else content.numpy().tobytes()


def from_first(work: Callable[[], Any]) -> Any:
    """The same for what JSON can hold: the first process does it, all have what came out."""
    if _room is None:
        return work()
    return json.loads(bytes_from_first(lambda: json.dumps(work()).encode()))


def gather(value: Any) -> list[Any]:
    """What JSON can hold from each process, in their order; numbers come through to the bit."""
    if _room is None:
        return [value]
    content = _as_tensor(json.dumps(value).encode())
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(_room.place.world)]
    _wait(_room, dist.all_gather(sizes, torch.tensor([len(content)]), group=_room.control, async_op=True))
    longest = max(int(size) for size in sizes)
    padded = torch.nn.functional.pad(content, (0, longest - len(content)))
    parts = [torch.empty(longest, dtype=torch.uint8) for _ in sizes]
    _wait(_room, dist.all_gather(parts, padded, group=_room.control, async_op=True))
    return [json.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]


def sum_over_all(tensor: torch.Tensor) -> None:
    """Into this process's tensor, on its device; the same bits everywhere."""
    if _room is None:
        return
    try:
        dist.all_reduce(tensor)
    except RuntimeError as error:
        raise stopped(error) from error


def _as_tensor(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)[: len(content)]
