"""Here figures are drawn: they are what is tested."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def drawn(real_figures: None) -> None:
    """In every module."""
