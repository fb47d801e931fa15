"""Which start of a browser may go ahead, among all programs that share a state directory.

    limits.py     the host's limits: environment, ``limits.toml``, the arguments of a start
    memory.py     how much memory is free for one more browser
    decision.py   who may start next; reads no file and no clock
    gate.py       the gate: what other packages use of this one, with request.py and overview.py
    waiting.py    the wait of one start
    gate_files.py what a look at the gate's files decides, with slots.py, tickets.py, files.py
    texts.py      what a start that waits or was refused is told
    refusals.py   counts the starts that got no slot, for the metrics
    drain.py      whether an operator lets no session start

Code here admits and refuses; what starts a browser is in ``session`` and ``pool``.
"""
