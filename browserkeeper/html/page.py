"""What all HTML pages share: Jinja2's environment, and the policy in the head of a page.

A page is a template that extends ``base.html`` and fills its block ``body``.  Jinja2 is imported when a
page is rendered, not before.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
KEPT = "\n\t"
"""Characters that do not print and stay all the same, for a text of several lines."""


def require_jinja2(option: str) -> None:
    """Raises ConfigError if Jinja2 cannot be imported.  ``option``: what needs it, for the message."""
    try:
        import jinja2  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "markupsafe"):
            raise
        raise ConfigError(
            f"{option} needs Jinja2 ({error}). Install it: pip install 'browserkeeper[html]'."
        ) from error


def render_page(template: Path, style: Path, *, images: bool = False, **facts: Any) -> str:
    """The text of a page.  Call :func:`require_jinja2` before the work that finds out its facts.

    ``template`` extends ``base.html``; other templates of its directory may be included.  ``facts`` are
    its variables; ``title`` is one of them.  Each text that it prints is escaped, and characters that do
    not print are replaced (``KEPT`` are not).  ``style`` is the page's style sheet.  The policy in the
    page's head allows this style sheet, by its hash, and with ``images`` images in ``data:`` URLs; no
    script, and nothing from elsewhere.
    """
    from markupsafe import Markup

    sheet = style.read_text("utf-8")
    policy = content_security_policy(sheet, images=images)
    page = environment(template.parent).get_template(template.name)
    return page.render(style=Markup(sheet), policy=policy, **facts)  # noqa: S704 - a file of ours


def environment(directory: Path) -> Environment:
    """An environment for the templates of ``directory`` and this package's ``base.html``.  All that
    templates print is escaped, whatever a template's name, and an unknown variable is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([directory, HERE]),
        autoescape=True,
        finalize=without_unprintable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )


def without_unprintable(value: Any) -> Any:
    """The text of a value.  Characters that do not print are replaced, except KEPT: among them are the
    escape sequences of terminals, and marks that change the direction of text.  What the environment
    has escaped already (it has ``__html__``), such as the result of a macro, stays as it is."""
    if hasattr(value, "__html__"):
        return value
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in KEPT else "\N{REPLACEMENT CHARACTER}" for c in text)


def content_security_policy(style: str, *, images: bool) -> str:
    """A policy that allows one style sheet, given as its text, and with ``images`` ``data:`` URLs."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    allowed = [f"style-src 'sha256-{digest}'", *(["img-src data:"] if images else [])]
    return "; ".join(["default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'"])
