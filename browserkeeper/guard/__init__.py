"""The guard: the program that starts a session's command, outlives its owner and ends everything.

It runs alone in its own process and is built for a fast start, so these modules import the C half of
the standard library only (``_signal`` and ``_ctypes`` in place of ``signal`` and
``ctypes``), and nothing of the package's other layers.

    boot.py, front.py, pair.py        where the program begins; the processes that make a guard
    life.py, grace.py, teardown.py    the phases of a session
    inside.py                         the sessions inside of a `browserkeeper run`
    guard.py                          the parts that the phases share, which are:
    options.py, signals.py, owner.py  the guard's surroundings
    title.py                          its name and command line, as others see them
    isolation.py, outside.py          the driver's network namespace; the browser, which is not in it
    libc.py                           calls of the C library
    command.py, containment.py        what it starts; how processes are found and ended
    profile.py                        the lock on a profile that is kept
    virtual_display.py                the X server that a session has of its own
    slot.py                           the session's place in the host's limit
    members.py, record.py             what it has seen; what it writes about that
    end_request.py                    an operator's request to end the session
    procfs.py, files.py, trees.py, descriptors.py, downloads.py, bells.py  functions for every layer
    displays.py                       the files of X servers in /tmp, for every layer too

Every layer may import the last eight, the options' values and the functions for the owner in
``isolation.py``.  Of the rest, the layers above import only what
they need to put a guard together (``process/portable_guard.py``, ``cleanup/adopting_guard.py``) and the
exit statuses (``cli/run.py``).

The kernel rules that the guard stands on:

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
