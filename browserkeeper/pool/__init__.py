"""``BrowserPool``: keeps browsers running and leases them to threads, each lease isolated.

What belongs here: everything that concerns more than one browser of a process.  One browser, from
its launch to its end, belongs to ``session/``; user contexts to ``drivers/contexts/``;
the file that shows a pool to other processes to ``state/pool_state.py``.

    pool.py             BrowserPool, which users call
    config.py           its arguments, checked, with the defaults and their reasons
    mapping.py          pool.map
    pacing.py           per_host, and the turns of hosts
    asynchronous.py     pool.alease
    hooks.py            configure, check and reset, the user's functions
    hook_call.py        one call of such a function, in a thread of its own
    lease.py            Request, Lease, and the handler of a lease's commands
    controller.py       runs the pool: events to the scheduler, decisions to the workers
    scheduler.py        decides; no I/O, no clock, no threads
    circuit_breaker.py  decides when to launch again after launches have failed
    backoff.py          random pauses between attempts
    event_loop.py       the one thread in which the scheduler and the controller run
    worker.py           a thread for each browser: launch, renew, ping, end
    browser.py          one browser: a session, and the isolation between its leases
    published_state.py  writes the pool's state for other processes
    latch.py            a flag between threads that signal handlers cannot break
    threads.py          starts a thread, with a typed error where the system gives no more
    logs.py             log calls that raise nothing

Other packages import from here, not from the modules.
"""

from .asynchronous import AsyncLease
from .lease import Lease, LeaseInfo, lease_of
from .mapping import Outcome, Outcomes
from .pacing import per_host
from .pool import BrowserPool

__all__ = [
    "AsyncLease",
    "BrowserPool",
    "Lease",
    "LeaseInfo",
    "Outcome",
    "Outcomes",
    "lease_of",
    "per_host",
]
