"""Which start of a browser may go ahead, among all programs that share a state directory.

    limits.py     the host's limits: environment, ``limits.toml``, the arguments of a start
    memory.py     how much memory is free for one more browser
    decision.py   who may start next; reads no file and no clock
    gate.py       the files of the gate: its lock, the slots of running browsers, the tickets of waiters
    waiting.py    the wait of one start
    refusals.py   counts the starts that got no slot, for the metrics
    drain.py      whether an operator lets no session start

Code here admits and refuses; what starts a browser is in ``session`` and ``pool``.
"""
