"""``BrowserPool``: fresh, isolated sessions for long-running scrapers, in milliseconds.

    pool.py         the handle that users hold
    core.py         what is behind it: joins the parts
    scheduler.py       who is in the pool, who waits, what to do next: decisions only, no I/O
    breaker.py      when to launch again after launches have failed
    supervisor.py   the one thread that touches the scheduler
    worker.py    a thread for each browser: launch, renew, close
    browser.py      one browser: a session, and how its leases are kept apart
    lease.py        a user's time with a browser, and the gate its commands pass through
    mapping.py      pool.map
    latch.py      a flag between threads that signal handlers cannot break
    config.py       the arguments, checked; the defaults and their reasons

Whoever comes from outside imports from here.
"""

from .lease import Lease, LeaseInfo, lease_of
from .mapping import Outcome
from .pool import BrowserPool

__all__ = ["BrowserPool", "Lease", "LeaseInfo", "Outcome", "lease_of"]
