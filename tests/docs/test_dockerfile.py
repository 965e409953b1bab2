"""The Dockerfile without Docker: each RUN line is something that is run elsewhere too, each COPY finds its file."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "Dockerfile"
IN_SLIM = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libcrypt1"}
"""What Debian's slim image has of the libraries that wheels link to: apt itself needs them."""


def instructions() -> list[tuple[str, str]]:
    """(NAME, rest) of each instruction, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    lines = [line.strip() for line in text.splitlines()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line and not line.startswith("#")]


def runs() -> list[str]:
    """The commands of the RUN lines, one by one, without their mounts."""
    found = []
    for name, rest in instructions():
        if name == "RUN":
            found += [part.strip() for part in re.sub(r"--mount=\S+\s+", "", rest).split("&&")]
    return found


def packages() -> list[str]:
    """What apt-get installs."""
    line = next(run for run in runs() if run.startswith("apt-get install"))
    return [word for word in shlex.split(line)[2:] if not word.startswith("-")]


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return done.stdout


@pytest.fixture
def bookworm() -> None:
    """Skips unless apt knows the packages of the Debian release that the image is made from."""
    release = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    if "VERSION_CODENAME=bookworm" not in release or not shutil.which("apt-cache"):
        pytest.skip("this is not Debian bookworm, whose packages the image takes")
    if not output("apt-cache", "show", "libc6"):
        pytest.skip("apt has no package lists here (apt-get update)")


def test_every_run_line_is_run_elsewhere_too() -> None:
    """By scripts/setup, or by a test below."""
    setup = (ROOT / "scripts/setup").read_text()
    assert runs()
    for run in runs():
        if run.startswith(("apt-get update", "apt-get install", "rm -rf /var/lib/apt/lists", "useradd")):
            continue
        command = run.split()[0]
        assert command in ("scripts/install", "video-lstm"), f"nothing else runs this: {run}"
        assert command in setup
    assert "video-lstm doctor" in runs()
    assert re.search(r"video-lstm doctor", setup)


def test_the_installation_is_that_of_setup_with_its_constraints() -> None:
    lines = (ROOT / "scripts/install").read_text().splitlines()
    pips = [line.strip() for line in lines if line.strip().startswith("pip install")]
    assert len(pips) == 4
    assert all("--constraint constraints.txt" in line for line in pips)
    assert pips[-1].endswith("--force-reinstall --no-deps opencv-python")  # the wheel written last is the one that runs
    assert "$TORCH_INDEX" in pips[0]
    assert re.search(r'ARG TORCH_INDEX=""\n', DOCKERFILE.read_text())  # the default index; no host is named


def test_the_install_script_refuses_to_guess() -> None:
    done = subprocess.run([str(ROOT / "scripts/install")], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "PYTHON EXTRAS" in done.stderr


def test_what_is_copied_is_there_and_passes_the_dockerignore() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "scripts/install", "pipeline", "configs"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, rule) or source.startswith(rule + "/") for rule in allowed), source
    assert [rule for rule in allowed if not (ROOT / rule).exists()] == []


def test_what_the_installation_needs_is_copied_before_it() -> None:
    """The project's metadata are read then: readme, licence, version. The code may follow: it is editable."""
    before = DOCKERFILE.read_text().split("RUN scripts/install")[0]
    project = (ROOT / "pyproject.toml").read_text()
    readme, licence = (re.search(pattern, project) for pattern in (r'readme = "(.+?)"', r'license-files = \["(.+?)"\]'))
    assert readme and licence
    for name in (readme[1], licence[1], "pyproject.toml", "constraints.txt", "pipeline/__init__.py"):
        assert re.search(rf"^COPY .*{re.escape(name)}", before, flags=re.M), name


def test_it_does_not_run_as_root() -> None:
    order = [name for name, _ in instructions()]
    user = next(rest for name, rest in instructions() if name == "USER")
    assert user not in ("root", "0")
    assert order.index("USER") > max(i for i, name in enumerate(order) if name == "RUN")
    assert ("ENTRYPOINT", '["video-lstm"]') in instructions()


def test_no_cache_stays_in_a_layer() -> None:
    text = DOCKERFILE.read_text()
    assert "PIP_NO_CACHE_DIR=1" in text
    assert re.search(r"apt-get install --yes --no-install-recommends [^\n]*&& rm -rf /var/lib/apt/lists/\*\n", text)


def test_the_user_can_be_made(tmp_path: Path) -> None:
    """The very useradd line, on an empty /etc of its own."""
    if not shutil.which("useradd") or os.geteuid() != 0:
        pytest.skip("useradd needs root")
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "etc" / name).touch()
    line = next(run for run in runs() if run.startswith("useradd"))
    subprocess.run([*shlex.split(line), "--prefix", str(tmp_path)], check=True, capture_output=True)
    user = next(rest for name, rest in instructions() if name == "USER")
    home = next(rest for name, rest in instructions() if name == "VOLUME")
    assert f"{user}:x:1000:" in (tmp_path / "etc/passwd").read_text()
    made = tmp_path / home.lstrip("/")
    assert made.stat().st_uid == 1000


@pytest.mark.usefixtures("bookworm")
def test_the_system_packages_exist() -> None:
    for package in packages():
        assert f"Package: {package}\n" in output("apt-cache", "show", package), package


@pytest.mark.usefixtures("bookworm")
def test_opencv_finds_its_system_libraries_and_no_package_is_there_for_nothing() -> None:
    """Every system library that cv2 links to comes with the slim image or with a package of the Dockerfile."""
    if sys.platform != "linux" or not shutil.which("ldd") or not shutil.which("dpkg"):
        pytest.skip("needs ldd and dpkg")
    needed = {package for library in system_libraries() if (package := owner(library))}
    assert needed, "cv2 links to no system library?"
    closure = {package: dependencies(package) | {package} for package in packages()}
    assert needed - IN_SLIM - set().union(*closure.values()) == set()
    for package in packages():
        assert package in needed, f"cv2 does not link to {package}"


def system_libraries() -> list[Path]:
    """Paths of the libraries outside the wheel that cv2's module is linked to, directly or not."""
    import cv2

    module = next(Path(cv2.__file__).parent.glob("cv2*.so"))
    paths = [Path(path) for path in re.findall(r"=> (/\S+)", output("ldd", str(module)))]
    return [path for path in paths if "site-packages" not in path.parts]


def owner(library: Path) -> str:
    """The Debian package of a library; empty for one that dpkg does not know."""
    for path in (library, Path("/usr") / library.relative_to("/"), library.resolve()):
        found = re.match(r"([\w.+-]+)(?::\w+)?: ", output("dpkg", "-S", str(path)))
        if found:
            return found[1]
    return ""


def dependencies(package: str) -> set[str]:
    """Everything that apt installs with a package."""
    flags = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"]
    text = output("apt-cache", "depends", "--recurse", *(f"--no-{flag}" for flag in flags), package)
    return set(re.findall(r"^([\w.+-]+)$", text, flags=re.M))
