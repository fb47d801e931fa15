"""The watch: looks at the whole machine from time to time, ends what dead owners left, and says
what else somebody has to see to.

    rounds.py      the loop and its looks; an exception in one ends neither
    notices.py     what there is to say, and that it is said once
    sessions.py    sessions past their deadline, without a guard, or with a guard that was stopped
    zombies.py     zombies, and the parent that does not reap them
    host.py        what runs out: processes, memory, space
    containers.py  the named containers: which is restarted, which is left alone, and when
    docker_api.py  the Docker daemon, through its SDK (needs ``browserkeeper[docker]``)

It acts by ``cleanup.sweeper``, which touches nothing that has an owner or a guard, and on containers
that were named to it.
"""
