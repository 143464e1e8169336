"""What pages share: templates in which nothing hidden is shown as it is, and how a page is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motes.core.files.visible import visible
from motes.errors import MotesError

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> Environment:
    """The templates of reports: what they are given is escaped, and what cannot be seen is written out."""
    import jinja2
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return jinja2.Environment(
        loader=jinja2.PackageLoader("motes.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=shown,
    )


def must_be_page(path: str | os.PathLike[str]) -> Path:
    """The path, or a MotesError if its name is not that of an HTML page."""
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise MotesError(f"a report is an HTML page: give a name that ends in .html, not {os.fspath(path)!r}")
    return Path(path)
