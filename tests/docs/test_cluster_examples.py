"""The examples for clusters are what their tools can read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "scripts/cluster"


def commands() -> list[str]:
    return re.findall(r"```bash\n(.*?)```", (ROOT / "docs/distributed.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("text", [*commands(), (EXAMPLES / "slurm.sbatch").read_text()])
def test_shell_parses(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_pods_find_the_first_one_by_the_service() -> None:
    service, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completions"] == spec["parallelism"] and spec["completionMode"] == "Indexed"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (container,) = pod["containers"]
    assert f"--nnodes={spec['completions']}" in container["command"]
    assert f"--rdzv-endpoint={job['metadata']['name']}-0.{pod['subdomain']}:29500" in container["command"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_what_the_examples_start_are_options_of_torchrun_and_of_the_command() -> None:
    from torch.distributed.run import get_args_parser

    engine = get_args_parser()
    _, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    parsed = engine.parse_args(job["spec"]["template"]["spec"]["containers"][0]["command"][3:])
    assert parsed.module and parsed.training_script == "pipeline" and parsed.training_script_args[0] == "train"
    for text in commands():
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("torchrun"):
                parsed = engine.parse_args(line.split()[1:])
                assert parsed.module and parsed.training_script_args[0] in ("train", "extract", "evaluate")
