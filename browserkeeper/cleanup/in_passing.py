"""Each start of a session looks for sessions that died with their guards, and finishes them.

So what the SIGKILL of an owner and both of its guards left is removed at the next start of the same
user, without a call of ``sweep``.  The same rules of evidence hold (``evidence.py``).

The look asks the lock of each record, which takes microseconds, and reads no record and no process.
Only where a lock is free the work goes on, in a thread or process of its own: the start neither waits
for it nor fails because of it.
"""

from __future__ import annotations

import _thread
import logging
import os
from pathlib import Path

from ..errors import BrowserkeeperError
from ..state.ledger import Ledger
from ..state.locks import ask, holding
from ..state.records import Record, read_record

logger = logging.getLogger("browserkeeper")


def finish_the_dead(ledger: Ledger) -> None:
    """Finish, in a thread, what sessions left whose guards and owner are dead.  Raises nothing."""
    if dead := _with_free_locks(ledger):
        try:
            _thread.start_new_thread(_finish, (ledger, dead))
        except RuntimeError as error:  # the limit of threads, or the interpreter ends
            logger.debug("no thread to finish dead sessions: %s", error)


def finish_the_dead_by_a_process(ledger: Ledger) -> None:
    """The same in a process of its own, for a caller that becomes another program by exec.

    Call it while this process has one thread.  The process that is forked holds no descriptor of the
    caller's, and is not its child.  Raises nothing.
    """
    dead = _with_free_locks(ledger)
    if not dead:
        return
    try:
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    _let_go_of_descriptors()
                    _finish(ledger, dead)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    except OSError as error:  # the limit of processes
        logger.debug("no process to finish dead sessions: %s", error)


def _with_free_locks(ledger: Ledger) -> list[Path]:
    """The records whose guards are dead.  Those without a lock are left to a sweep."""
    try:
        with os.scandir(ledger.live) as entries:
            paths = [Path(entry.path) for entry in entries if entry.name.endswith(".json")]
    except OSError:
        return []
    return [path for path in paths if ask(ledger.lock_path(path.stem), 0).state == "free"]


def _finish(ledger: Ledger, paths: list[Path]) -> None:
    """Each record is locked meanwhile, so that of several starts one does the work."""
    for path in paths:
        try:
            with holding(path, 0) as claim:
                if claim.state == "free":
                    _finish_one(ledger, read_record(path))
        except (BrowserkeeperError, OSError) as error:
            logger.debug("the dead session %s is left to a sweep: %s", path.stem, error)
        except Exception:
            logger.exception("the dead session %s was not finished", path.stem)


def _finish_one(ledger: Ledger, record: Record) -> None:
    from .sweeper import Sweeper  # not needed by a start that finds nothing

    sweeper = Sweeper(ledger, dry_run=False, older_than=0)
    finding = sweeper.finish(record)
    if finding is None or finding.report is None:  # it is its owner's, or not ours to judge
        return
    log = logger.info if finding.removed else logger.warning
    text = f"{finding.what}, whose guards were killed too, was finished at the start of another session"
    log("%s\n%s", text, finding.report, extra=finding.report.log_fields())


def _let_go_of_descriptors() -> None:
    """A reader of a pipe of the caller's must not wait for this process."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                pass


def finish_now(state: str) -> None:
    """The same, at once, for a guard with sessions inside of its own (``guard/inside.py``)."""
    ledger = Ledger(Path(state))
    _finish(ledger, _with_free_locks(ledger))


__all__ = ["finish_now", "finish_the_dead", "finish_the_dead_by_a_process"]
