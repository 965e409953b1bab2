"""The cluster examples of docs/distributed.md are well-formed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "distributed.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.S)


def test_the_shell_scripts_parse() -> None:
    assert len(blocks("bash")) == 3
    for script in blocks("bash"):
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_job_asks_for_what_torchrun_is_told() -> None:
    service, job = (yaml.safe_load(block) for block in blocks("yaml"))
    container = job["spec"]["template"]["spec"]["containers"][0]
    nodes = container["args"][container["args"].index("--nnodes") + 1]
    assert int(nodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
