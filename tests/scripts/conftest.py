"""The folder scripts/ on the path, as Python puts it there for a script that it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="session", autouse=True)
def scripts_on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield
    for name in [name for name in sys.modules if name == "lab" or name.startswith("lab.") or name == "gap_length"]:
        sys.modules.pop(name)
