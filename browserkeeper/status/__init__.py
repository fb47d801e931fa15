"""Sessions over the last hours: what the history and the live records tell, in one picture.

    model.py   the facts, on one clock; frozen dataclasses, no decisions about how they look
    page.py    them as one HTML page that needs nothing else (page.css goes into it)

Imported by ``browserkeeper report`` only.
"""
