"""A dataset folder to fill."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import DataConfig
from pipeline.data.layouts import Listing, discover
from pipeline.errors import DataError


class Place:
    """The folder `root`, inside a folder of its own as published datasets lie."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def touch(self, *names: str) -> None:
        for name in names:
            self.write(name, "")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def listing(self, **options: Any) -> Listing:
        return discover(DataConfig(root=str(self.root), **options))

    def rows(self, **options: Any) -> list[tuple[Any, ...]]:
        """(path below the root, label, group, split, start, end) of each entry."""
        return [
            (os.path.relpath(e.path, self.root), e.label, e.group, e.split, e.start, e.end)
            for e in self.listing(**options).entries
        ]

    def failure(self, **options: Any) -> str:
        with pytest.raises(DataError) as caught:
            self.listing(**options)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "sets" / "data"
    root.mkdir(parents=True)
    return Place(root)
