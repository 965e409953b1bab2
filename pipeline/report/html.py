"""Pages that a person opens in a browser: one file each, which needs no network.

The templates are beside this file, in `templates/`; all of them extend `base.html`, which has the colours and the
fonts. What is put into a template is escaped, so no file name of the user's becomes markup.
"""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.disk import replacing
from pipeline.report.bootstrap import format_interval
from pipeline.report.variants import cost_text


def render(template: str, **values: Any) -> str:
    """The page.

    Args:
        template: file name in `templates/`.
        values: what it shows. In the template, `value | data` is JSON for a script, `path_or_bytes | picture` the
            address of a PNG, JPEG or WebM inside the page,
            `row | score('f1')` a number with its interval.
    """
    return _environment().get_template(template).render(**values)


def write_page(path: str | Path, template: str, **values: Any) -> None:
    """`render` into a file, which is whole or not there."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(render(template, **values), encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"data": _data, "picture": _picture, "score": _score, "cost": cost_text}
    return environment


def _data(value: Any) -> Markup:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  (escaped just above)


def _score(row: dict[str, Any], key: str = "score") -> str:
    """A score of a row with its interval."""
    return format_interval(row[key], row[f"{key}_low"], row[f"{key}_high"])


KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"\x1aE\xdf\xa3": "video/webm"}


def _picture(source: str | Path | bytes) -> Markup:
    """A `data:` address."""
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    kind = next((kind for start, kind in KINDS.items() if content.startswith(start)), None)
    if kind is None:
        raise ValueError("a page holds PNG, JPEG and WebM alone")
    return Markup(f"data:{kind};base64,{base64.b64encode(content).decode()}")  # noqa: S704  (base64)
