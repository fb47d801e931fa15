"""Finding, ending and removing what sessions leave whose owner or guards are dead.

    evidence.py            whether owner, guards and files of a session are in use, and how that is known
    pool_evidence.py       whether the owner of a published pool lives
    removal.py             ends one session: its processes, its files, its part on a Grid, its record
    sweeper.py             ``sweep()``: one pass over all that dead owners left
    in_passing.py          what each start of a session does about dead ones
    temporary_profiles.py  profiles of browsers that other code started
    adopting_guard.py      the guard of a browser that other code started

A session that ends in the usual way does not need this package: its guard cleans up.
"""
