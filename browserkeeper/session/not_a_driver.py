"""The error for a driver's attribute that is asked of the object which has the driver."""

from __future__ import annotations


def no_attribute(owner: object, name: str, how: str) -> AttributeError:
    """For ``__getattr__``, which Python calls where ``owner`` has no such attribute.

    ``how`` says how the driver is got.  A property of ``owner`` that has raised AttributeError itself
    raises it once more.  For names that begin with "_", which copy, pickle and other
    protocols ask for, the text is Python's own.
    """
    if hasattr(type(owner), name):
        object.__getattribute__(owner, name)
    kind = type(owner).__name__
    text = f"{kind!r} object has no attribute {name!r}"
    if not name.startswith("_"):
        text += f". If it is the driver's: {how.format(name)}."
    return AttributeError(text, name=name, obj=owner)
