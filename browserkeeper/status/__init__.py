"""The state of this host's sessions, and of this host, as facts.  Read-only: nothing here ends a process
or removes a file.

    snapshot.py       the sessions and pools at this moment, and what is wrong with them
    pressure.py       whether one more browser could start on this host now, and why not
    timeline.py       the sessions of the last hours: when each began and ended, and how
    check.py          one result of a check, with its remedy
    doctor.py         the checks of this machine (doctor_linux.py has those for Linux,
                      doctor_limits.py those of limits)
    celery_advice.py  the checks of a Celery app's settings, and recommended settings
    text.py           units and foreign names as text

What may live here: functions that read the ledger, ``/proc`` or settings and return frozen dataclasses.
Printing, pages, logging and serving belong to the layers above.
"""
