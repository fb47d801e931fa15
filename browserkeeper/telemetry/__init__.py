"""Numbers for a monitoring system, from the ledger: one exporter for all sessions of this user.

Since the ledger is where every process writes, prefork workers need no multiprocess mode, and the
programs that use browsers need not know.

    tally.py      what was seen of the ledger so far: counters and histograms; no library
    collector.py  both as Prometheus's metric families (needs ``browserkeeper[metrics]``)
    server.py     /metrics, /healthz and /readyz over HTTP

Imported by nobody but ``browserkeeper watch``, and by those who ask for it.
"""
