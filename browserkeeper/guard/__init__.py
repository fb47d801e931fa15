"""The guard: the program that starts a session's command, outlives its owner and ends everything.

It runs alone in its own process (``boot.py`` says how) and is built for a fast start, so these
modules import the C half of the standard library only, and nothing of the package's other layers.

``procfs.py`` and ``files.py`` are the package's ground floor: every layer may import them.  Of the
rest, the layers above import only what they need to put a guard together (``process/portable_guard.py``,
``cleanup/adopting_guard.py``) and the exit statuses (``cli/run.py``).

The life of a session is in ``life.py``: prepare, start, watch, tear down, retire.  The kernel rules
that it stands on:

* ``prctl(PR_SET_CHILD_SUBREAPER)``: an orphaned descendant is re-parented to the nearest living
  subreaper among its ancestors (prctl(2)).  So every process started below the guard stays below it,
  however it daemonises, and when ``waitpid(-1)`` says ``ECHILD`` there is no descendant left.  That
  answer is the certificate.
* ``prctl(PR_SET_PDEATHSIG)`` fires when the *thread* that forked dies, and is lost when the parent
  died before the call (prctl(2)).  So only this single-threaded program sets it, and the child
  compares ``getppid()`` afterwards.
* A pid cannot be recycled before it is reaped, so a direct child may be signalled by number; anything
  deeper is signalled through a pidfd (pidfd_open(2)).
"""
