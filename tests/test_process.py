"""What a process keeps: each case in a process of its own, since it is the whole process that changes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from pipeline.process import KERNELS, keep_freed_memory

GLIBC = platform.libc_ver()[0] == "glibc"
BLOCKS = """if True:
    import resource, threading
    from pipeline.process import keep_freed_memory
    done = keep_freed_memory()
    def work():
        for size in (40 << 20, 70 << 20, 20 << 20):  # more and less than malloc may take from its heap by default
            block = bytearray(size)
            block[:: 4096] = bytes(size // 4096)
    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        work()
        thread = threading.Thread(target=work)
        thread.start(), thread.join()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    faults()
    print(done, faults())"""
PAGES = 2 * (130 << 20) // 4096
"""Of all blocks, if they are small ones."""


def child(code: str, **environment: str) -> list[str]:
    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name and "ONEDNN" not in name}
    done = subprocess.run([sys.executable, "-c", code], env=plain | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not GLIBC, reason="the allocator is not glibc's")
def test_freed_memory_is_used_again_in_all_threads() -> None:
    done, faults = child(BLOCKS)
    assert done == "True" and int(faults) < PAGES / 100
    done, faults = child(BLOCKS, MALLOC_MMAP_THRESHOLD_="131072")  # what the user said stays
    assert done == "False" and int(faults) > PAGES / 2


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert keep_freed_memory() is False


def test_the_command_keeps_kernels_and_what_the_user_set() -> None:
    code = """if True:
        import os
        from pipeline.cli import main
        main(["--version"])
        print(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"])"""
    assert child(code)[-1] == KERNELS
    assert child(code, ONEDNN_PRIMITIVE_CACHE_CAPACITY="7")[-1] == "7"


def test_batches_of_many_lengths_do_not_compile_their_kernels_again() -> None:
    """The names of kernels that are compiled, as oneDNN tells them: none when every length has been there before."""
    code = """if True:
        from pipeline.process import prepare_process
        prepare_process()
        import torch
        from pipeline.config import EncoderConfig, VideoConfig
        from pipeline.model.encoder import build_encoder
        encoder = build_encoder(EncoderConfig(name="mobilenet_v3_small", weights="none", frozen=False)).train()
        for turn in range(2):
            print("turn", turn, flush=True)
            for count in range(2, 40):
                frames = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
                encoder(frames).sum().backward()"""
    said = " ".join(child(code, ONEDNN_VERBOSE="profile_create", OMP_NUM_THREADS="1"))
    first, second = said.split("turn 1")
    assert first.count("create:cache_miss") > 1024 > 0 == second.count("create:cache_miss")
