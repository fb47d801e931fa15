"""A Selenium Grid, seen from here: its address, its answers, and the program that stands between a
session's owner and it.  The standard library only, and nothing of this package but its errors.

``address.py`` says where a Grid is and keeps its credentials apart; ``hub.py`` talks to it and gives
sessions back; ``relay.py`` is the program, which runs under a guard as a driver would.
"""
