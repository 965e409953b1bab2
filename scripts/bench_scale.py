"""How `classify --engine ray` grows from one node to two, and what it costs over one machine's own engine.

    .venv/bin/python scripts/bench_scale.py            the table of docs/scale.md; about 10 minutes on 2 idle cores
    .venv/bin/python scripts/bench_scale.py --quick    few clips, once: that it runs
    .venv/bin/python scripts/bench_scale.py --json     one flat object

Each node is a Ray node on loopback whose processes are bound to a core of their own; so is what they are compared with:
`classify` of one machine, in a process bound to one core, and to two. Clips and model are those of bench_classify.py.
Each process answers to `FEW` clips and then to all: the difference in time is that of the others, without what starts
once a job. The runs take turns.

scaling    two nodes over one; 2 would be perfect
local      two cores over one without Ray
vs_local   two nodes over two cores without Ray
start      seconds that FEW clips take on two nodes, less what they take there once everything runs
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil
from bench_classify import save_model, write_clips
from kill_ray import LOOPBACK, folder_for_ray

from pipeline.config import Config, EncoderConfig, RecurrentConfig
from pipeline.stages.scale.session import quieten

FEW = 16

WORK = """
import json, os, sys, time
cores, address, few, model, *paths = json.loads(sys.argv[1])
if cores:
    os.sched_setaffinity(0, cores)
if address:
    from pipeline.config import RayConfig
    from pipeline.stages.scale.predictor import ray_predictor
    opened = ray_predictor(model, RayConfig(address, files=8))
else:
    from contextlib import nullcontext
    from pipeline.stages.predict import load_predictor
    opened = nullcontext(load_predictor(model, "cpu"))
with opened as predictor:
    seconds = []
    for some in (paths[:few], paths):
        began = time.perf_counter()
        for one in predictor.predict(some, -1):
            if one.error is not None:
                raise one.error
        seconds.append(time.perf_counter() - began)
rate = (len(paths) - few) / (seconds[1] - seconds[0])
print(json.dumps([rate, seconds[0] - few / rate]))
"""


class Nodes:
    """A cluster on loopback, a core for each node."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder_for_ray()
        self.cluster = Cluster()
        for number in range(count):
            head = {"include_dashboard": False, "temp_dir": self.folder} if number == 0 else {}
            node = self.cluster.add_node(num_cpus=1, node_ip_address=LOOPBACK, **head)
            for kind in node.all_processes.values():
                for started in kind:
                    bind(started.process.pid, number)

    def close(self) -> None:
        """End it."""
        self.cluster.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)


def bind(pid: int, core: int) -> None:
    """A process and its children, and those to come, to one core."""
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        one.cpu_affinity([core])


def run(cores: list[int] | None, address: str | None, model: Path, paths: list[str]) -> list[float]:
    """Clips per second, and seconds to start, of a process of its own."""
    given = json.dumps([cores, address, FEW, str(model), *paths])
    done = subprocess.run([sys.executable, "-c", WORK, given], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def bench(quick: bool) -> dict[str, float]:
    """Measure everything."""
    count, repeats = (48, 1) if quick else (384, 3)
    quieten()
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = Config(encoder=EncoderConfig(weights="none", frozen=True), recurrent=RecurrentConfig(hidden=256))
        save_model(folder / "model", config)
        paths = write_clips(folder, count)
        for _ in range(repeats):
            for nodes in (1, 2):
                local = run(list(range(nodes)), None, folder / "model", paths)
                found.setdefault(f"local_{nodes}", []).append(local)
                cluster = Nodes(nodes)
                try:
                    spread = run(None, cluster.cluster.address, folder / "model", paths)
                finally:
                    cluster.close()
                found.setdefault(f"ray_{nodes}", []).append(spread)
    rate = {name: statistics.median(one[0] for one in runs) for name, runs in found.items()}
    return {
        **{f"{name}_clips_per_second": value for name, value in rate.items()},
        "scaling": rate["ray_2"] / rate["ray_1"],
        "local": rate["local_2"] / rate["local_1"],
        "vs_local": rate["ray_2"] / rate["local_2"],
        "start": statistics.median(one[1] for one in found["ray_2"]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few clips, once: that it runs")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    options = parser.parse_args(arguments)
    found = {key: float(f"{value:.4g}") for key, value in bench(options.quick).items()}
    print(json.dumps(found) if options.json else "\n".join(f"{key} {value}" for key, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
