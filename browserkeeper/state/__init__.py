"""All files of browserkeeper that outlive a process, and the rules for who may have written them.

    directory.py     where the state directory is
    documents.py     reads one JSON file, if no other user can have written it
    records.py       the files about one session: its record, and its entry in the history
    locks.py         asks whether the guards of a session live
    ledger.py        the state directory as a whole: live sessions, history, pools
    pool_state.py    the state that a pool publishes for other processes
    totals.py        counters that outlive the programs that count
    tmpdirs.py       where the TMPDIR of a session is made
    permissions.py   whether another user could write a file or exchange a directory

Code here reads and writes; whether a session is dead, and what to do then, is decided in ``cleanup``.
"""
