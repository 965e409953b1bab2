"""One file, no network, nothing of the user's becomes markup."""

from pathlib import Path

import pytest
from jinja2 import DictLoader, UndefinedError

from pipeline.report import html

TEMPLATE = (
    '{% extends "base.html" %}{% block title %}{{ name }}{% endblock %}'
    "{% block script %}<script>x = {{ rows | data }}</script>{% endblock %}"
)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = html._environment.__wrapped__()
    base = (Path(html.__file__).parent / "templates/base.html").read_text()
    environment.loader = DictLoader({"t.html": TEMPLATE, "base.html": base})
    monkeypatch.setattr(html, "_environment", lambda: environment)


@pytest.mark.usefixtures("page")
def test_names_and_data_are_escaped() -> None:
    text = html.render("t.html", name="<b>&", rows=["</script><script>alert(1)", "\u2028"])
    assert "<title>&lt;b&gt;&amp;</title>" in text
    assert text.count("<script>") == 1 and "</script><script>" not in text and "\u2028" not in text
    assert "http://" not in text and "https://" not in text


@pytest.mark.usefixtures("page")
def test_a_value_that_is_missing_and_a_number_that_is_none_are_errors() -> None:
    with pytest.raises(UndefinedError):
        html.render("t.html", rows=[])
    with pytest.raises(ValueError, match="JSON"):
        html.render("t.html", name="", rows=[float("nan")])


def test_pictures_become_part_of_the_page(tmp_path: Path) -> None:
    picture = html._environment().filters["picture"]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    assert picture(tmp_path / "a.png") == "data:image/png;base64,iVBORw0K"
    assert picture(b"\xff\xd8\xff\xe0") == "data:image/jpeg;base64,/9j/4A=="
    with pytest.raises(ValueError, match="PNG"):
        picture(b"<svg>")
