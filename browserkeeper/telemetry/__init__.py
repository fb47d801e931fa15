"""What leaves the process for other programs: log lines, and numbers for a monitoring system.

    logs.py       the log handler, for programs that want one event in one line and one write(2)
    log_fields.py a record's fields; the ids of OpenTelemetry's span and of Celery's task
    log_lines.py  the formatters for lines of JSON and of text
    tally.py      counters and histograms of all sessions of this user, from the ledger; no library
    collector.py  the tally and the snapshot as Prometheus metric families (``browserkeeper[metrics]``)
    server.py     /metrics, /healthz and /readyz over HTTP

Every process writes to the ledger, so one exporter serves all of them: Celery's prefork workers
need no multiprocess mode, and programs that use browsers export nothing themselves.  What may live
here: encoders and exporters that read the layers below.  Deciding what to do about a finding is the
watch's.
"""
