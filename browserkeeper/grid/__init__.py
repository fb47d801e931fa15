"""Talking to a Selenium Grid, and ending sessions on it.

Modules here import the standard library, ``errors`` and ``report`` only, so that the relay starts
fast and without site-packages.

    address.py     where a Grid is; keeps its credentials apart from the URL that is printed
    hub.py         requests to a Grid, and what its answers mean
    ending.py      ends a session on a Grid and verifies that it is gone
    interrupt.py   breaks off a command that a Grid is executing
    admission.py   which requests the relay accepts
    upstream.py    the relay's connection to the Grid, on which no command is sent twice
    relay.py       the program that runs under a session's guard, between the owner and the Grid
"""
