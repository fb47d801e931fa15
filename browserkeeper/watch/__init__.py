"""The watch: in regular rounds it sweeps what dead owners left, and reports what a person has to do.

    rounds.py      the loop; a check that raises ends neither its round nor the watch
    notices.py     a finding as text and log fields, and the memory that lets it be logged once
    sessions.py    sessions past their deadline, without a guard, or with a guard that is stopped
    zombies.py     zombies, and the parent that does not reap them
    host.py        what this host or cgroup runs out of: processes, memory, space
    readiness.py   for how long no browser could start: what /readyz answers
    containers.py  when a named container is restarted, and when it is left alone
    docker_api.py  the Docker daemon, through its SDK (needs ``browserkeeper[docker]``)

It ends processes only through ``cleanup.sweeper``, which spares every session whose owner or guard is
alive, and restarts only containers whose names it was given.  A layer below the command line, which
runs it as a service, and above telemetry, whose counters it fills.
"""
