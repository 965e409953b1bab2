"""The documents say what is there: links, commands, options, the map, the configurations."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from pipeline.cli import COMMANDS, main
from pipeline.errors import Reason
from pipeline.options import load_config

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
CONFIGS = sorted(ROOT.glob("configs/*.yaml"))
NOT_OURS = ("docker", "mlflow")  # commands whose options are not video-lstm's
TEXT = {".md", ".py", ".toml", ".yaml", ".txt", ".yml", ""}
BUILT = {".git", ".venv", "runs", "mlruns", "demo", "dist", "__pycache__", ".hypothesis"}

MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:work|root)/|/tmp/[e]xp")
# spelt in parts, or this file would name what it looks for
HOSTS = re.compile("|".join(re.escape(".".join(parts)) for parts in (
    ("pypi", "org"), ("files", "pythonhosted", "org"), ("download", "pytorch", "org"), ("pypi", "nvidia", "com"),
    ("conda", "anaconda", "org"), ("ghcr", "io"), ("registry-1", "docker", "io"), ("registry", "npmjs", "org"),
)))  # fmt: skip


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@cache
def options_of(command: str) -> frozenset[str]:
    """Every option in a command's help."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([command, "--help"])
    found = frozenset(re.findall(r"(?<![\w-])--[A-Za-z][\w.]*", text.getvalue()))
    assert "--help" in found, text.getvalue()
    return found


@cache
def options_of_scripts() -> frozenset[str]:
    scripts = [path.read_text() for path in ROOT.glob("scripts/*") if path.is_file()]
    return frozenset(re.findall(r"""add_argument\(\s*["'](--[\w-]+)""", "\n".join(scripts)))


def code(text: str) -> list[str]:
    """What a document sets as code: the lines of its blocks, and what stands between backticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    local = [link.partition("#")[0] for link in links if "://" not in link and not link.startswith(("#", "mailto:"))]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_command_and_option_that_a_document_names_exists(document: Path) -> None:
    everywhere = options_of_scripts().union({"--debug"}, *(options_of(command) for command in COMMANDS))
    for piece in code(document.read_text()):
        call = re.search(r"(?:^|\s)video-lstm\s+([a-z]\w*)(.*)", piece)
        if call and not piece.lstrip().startswith(NOT_OURS):
            assert call[1] in COMMANDS, piece
            words = shlex.split(call[2].replace("...", ""), comments=True)
            options = [word.partition("=")[0] for word in words if word.startswith("--")]
            assert [name for name in options if name not in options_of(call[1])] == [], piece
        elif piece.startswith("--"):
            name = re.match(r"--[\w.-]+", piece)
            assert name and name[0] in everywhere, piece


def test_the_checks_see_a_wrong_option() -> None:
    assert "--data.root" in options_of("train")
    assert "--data.rot" not in options_of("train")
    assert code("a `--x y` b\n```bash\nvideo-lstm train\n```\n") == ["video-lstm train", "--x y"]


def test_the_readme_lists_exactly_the_commands_there_are() -> None:
    rows = re.findall(r"^\| `video-lstm (\w+)", (ROOT / "README.md").read_text(), flags=re.M)
    assert rows and sorted(rows) == sorted(COMMANDS)


def test_the_readme_lists_exactly_the_configurations_there_are() -> None:
    rows = re.findall(r"^\| `(configs/\w+\.yaml)`", (ROOT / "README.md").read_text(), flags=re.M)
    assert sorted(rows) == names(CONFIGS)


def test_the_map_of_the_architecture_names_exactly_the_files_there_are() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    listed: list[str] = []
    rooms: list[str] = []  # the folders on the way to a line, by its indentation: two more spaces, one deeper
    for line in text[text.index("    pipeline/\n") :].splitlines()[1:]:
        entry = re.match(r"((?:  ){3,5})(\w+\.py|\w+/)(?:\s|$)", line)
        if entry is None:
            break
        rooms = rooms[: len(entry[1]) // 2 - 3]
        if entry[2].endswith("/"):
            rooms.append(entry[2])
        else:
            listed.append(f"pipeline/{''.join(rooms)}{entry[2]}")
    assert len(listed) == len(set(listed))
    assert sorted(listed) == names(sorted(ROOT.glob("pipeline/**/*.py")))


@pytest.mark.parametrize("path", CONFIGS, ids=names(CONFIGS))
def test_a_configuration_loads_and_says_first_what_it_is_for(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert re.match(r"# \w.{20,}\.$", first), first
    if path.stem == "sweep":  # of another command, see tests/test_config.py
        assert yaml.safe_load(path.read_text())["name"] == path.stem
    else:
        assert load_config(str(path)).name.replace("-", "_") == path.stem


def committed() -> list[Path]:
    """The project's text files: everything but what git ignores and what is built."""
    found = []
    for folder, inside, files in os.walk(ROOT):
        inside[:] = [name for name in inside if name not in BUILT and not name.endswith(("_cache", ".egg-info"))]
        found += [Path(folder) / name for name in files if Path(name).suffix in TEXT and name not in BUILT]
    return found


def test_no_file_names_a_path_of_some_machine_or_the_host_of_a_registry() -> None:
    files = committed()
    assert ROOT / "Dockerfile" in files and ROOT / "pipeline/cli/__init__.py" in files
    found = []
    for path in files:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if MACHINE_PATHS.search(line) or HOSTS.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_the_picture_of_the_readme_is_small() -> None:
    picture = ROOT / "docs/img/demo.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 400_000


def imported(folder: str) -> set[str]:
    """Top-level modules that the Python files below a folder import."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def declared(*extras: str) -> set[str]:
    """Distributions that pyproject.toml asks for, in lower case with dashes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [item for name in extras for item in project["optional-dependencies"][name]]
    return {re.split(r"[\[<>=!~; ]", item)[0].lower().replace("_", "-") for item in wanted}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("pipeline", ("weights", "gpu", "av", "onnx", "ray", "remote")),
        ("tests", ("dev", "av", "remote")),
        ("scripts", ("dev", "av", "lab", "ray")),
    ],
)
def test_what_is_imported_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    """Something that only happens to be installed is missing on the next machine."""
    providers = {"pynvml": ["nvidia-ml-py"], **packages_distributions()}
    ours = {"pipeline", "tests", "conftest", "__future__"} | {path.stem for path in (ROOT / "scripts").rglob("*")}
    ours |= {"pool_tasks", "here_alone", "slow_to_import"}  # written by tests
    outside = {name for name in imported(folder) if name not in sys.stdlib_module_names | ours}
    allowed = declared(*extras) | ({"torchcodec", "torch"} if folder == "scripts" else set())
    undeclared = {
        name for name in outside if not {p.lower().replace("_", "-") for p in providers.get(name, [name])} & allowed
    }
    assert not undeclared


def test_the_reasons_are_documented_and_no_others() -> None:
    rows = re.findall(r"^\| `([a-z ]+)` \|", (ROOT / "docs/files.md").read_text(encoding="utf-8"), flags=re.M)
    assert rows == [str(reason) for reason in Reason]
