"""What leaves the process for other programs: log lines, and numbers for a monitoring system.

    logs.py       log records as lines of JSON or text, for programs that want browserkeeper's format
    tally.py      counters and histograms of all sessions of this user, from the ledger; no library
    collector.py  the tally and the snapshot as Prometheus metric families (``browserkeeper[metrics]``)
    server.py     /metrics, /healthz and /readyz over HTTP

Every process writes to the ledger, so one exporter serves all of them: Celery's prefork workers
need no multiprocess mode, and programs that use browsers export nothing themselves.  What may live
here: encoders and exporters that read the layers below.  Deciding what to do about a finding is the
watch's.
"""
