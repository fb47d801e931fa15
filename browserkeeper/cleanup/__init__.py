"""Finding, ending and removing what sessions leave whose owner or guards are dead.

    evidence.py            whether owner, guards and files of a session are in use, and how that is known
    pool_evidence.py       whether the owner of a published pool lives
    removal.py             ends one session: its processes, its files, its part on a Grid, its record
    sweeper.py             ``sweep()``: one pass over all that dead owners left
    in_passing.py          what each start of a session does about dead ones
    temporary_profiles.py  profiles of browsers that other code started
    foreign_evidence.py    whether what other code has started is an orphan, and how that is known
    foreign_profiles.py    the same for temporary profiles
    foreign.py             finding and ending those: ``browserkeeper sweep --foreign``
    browser_programs.py    which processes are drivers or browsers
    adopting_guard.py      the guard of a browser that other code started

A session that ends in the usual way does not need this package: its guard cleans up.
"""
