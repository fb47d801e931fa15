"""Sphinx's roles in docstrings as links of the site, for griffe (mkdocs.yml).

Docstrings say ``:meth:`close```, which ``help()`` and editors show as it is. On the site it becomes a
link to what the name means in the docstring's scope. If the site does not document that, the link leads
nowhere, and the strict build fails.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:meth|class|func|mod|attr|exc|data):`(~?)\.?([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites the docstrings of a package when all of its modules are known."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        self._rewrite(pkg, set())

    def _rewrite(self, object_: griffe.Object, seen: set[str]) -> None:
        if object_.path in seen:
            return
        seen.add(object_.path)
        if object_.docstring is not None:
            text = object_.docstring.value
            object_.docstring.value = ROLE.sub(lambda match: link(object_, match), text)
        for member in object_.members.values():
            if not member.is_alias:
                self._rewrite(member, seen)  # type: ignore[arg-type] # no alias


def link(scope: griffe.Object, match: re.Match[str]) -> str:
    name = match[2]
    shown = name.rpartition(".")[2] if match[1] else name
    return f"[`{shown}`][{target_of(scope, name)}]"


def target_of(scope: griffe.Object, name: str) -> str:
    """The full path of what ``name`` means in the scope, or the name if it is unknown."""
    owner: griffe.Object | None = scope
    while owner is not None:
        found = member_of(owner, name)
        if found:
            return found
        owner = owner.parent
    return f"browserkeeper.{name}" if name in _public(scope) else name


def member_of(owner: griffe.Object, name: str) -> str:
    """The path of a member, an inherited one as well; "" if there is none."""
    first, _, rest = name.partition(".")
    if first == owner.name and owner.is_class and not rest:
        return owner.canonical_path
    found = owner.all_members.get(first) if owner.is_class else owner.members.get(first)
    if found is None:
        return ""
    try:
        target = found.final_target if found.is_alias else found  # type: ignore[union-attr]
        return member_of(target, rest) if rest else target.canonical_path  # type: ignore[arg-type]
    except griffe.AliasResolutionError:
        return ""


def _public(scope: griffe.Object) -> set[str]:
    package = scope.package
    return {str(name) for name in package.exports or ()}
