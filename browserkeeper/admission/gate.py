"""The gate: which start of a browser may go ahead, among all programs of a state directory."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable

from ..errors import ConfigError, HostBusy, LedgerError, LimitError, SessionTimeout
from ..process.limit_errors import limit_of_errno
from ..state.ledger import Ledger
from . import drain, memory
from .files import Bell
from .gate_files import GateFiles, HeldBack
from .limits import HostLimits, Kind, effective, environment_limits, host_limits
from .overview import GateState
from .refusals import count_refusal
from .request import SlotRequest
from .slots import Slot, describe_self, take
from .texts import explain
from .waiting import MUTEX_PATIENCE, Wait


class Gate:
    """The gate of one state directory.  Safe to use from several threads and processes."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self._files = GateFiles(ledger)

    # -- taking slots

    def acquire(
        self,
        request: SlotRequest,
        wait: float | None,
        check: Callable[[], float | None] = lambda: None,
    ) -> Slot:
        """A slot, as soon as this start may go.

        Waits for ``wait`` seconds at the most; 0 tries once, None has no limit.  ``check`` is called
        often and after each :meth:`SlotRequest.wake`: what it raises ends the wait, and it returns when
        it wants to be called again at the latest (``time.monotonic()``), or None.  Whatever ends the
        wait, no slot and no ticket stays.

        Raises HostBusy, ConfigError for limits that make no sense, and LedgerError where a limit is set
        and the files of the gate cannot be used; without a limit a start goes ahead without a slot then.
        """
        limits = self._limits(request)
        began = time.monotonic()
        waiting = Wait(self._files, request, wait, check)
        try:
            slot = waiting.run()
        except (HostBusy, SessionTimeout):
            if waiting.reason is not None:
                count_refusal(self.ledger.directory, waiting.reason, at_once=wait == 0)
            raise
        except OSError as error:
            is_explained = isinstance(error, (LedgerError, LimitError, TimeoutError, ConnectionError))
            if is_explained or waiting.is_checking:
                raise
            slot = self._without(error, request.kind, limits, time.monotonic() - began)
        request.on_admitted()
        return slot

    def force(self, kind: Kind = "adopted", *, label: str = "") -> Slot:
        """A slot for a browser that runs already: without waiting, whatever the limit.

        Raises LedgerError where a limit is set and the files of the gate cannot be used.
        """
        try:
            return self._files.repeated(lambda: self._take_at_once(kind, label))
        except OSError as error:
            limits = environment_limits()
            with contextlib.suppress(ConfigError):
                limits = host_limits(self.ledger)
            return self._without(error, kind, limits, 0.0)

    def _take_at_once(self, kind: Kind, label: str) -> Slot:
        with self._files.locked(time.monotonic() + MUTEX_PATIENCE):
            facts = {**describe_self(label), "kind": kind}
            return Slot(take(self.ledger.slots, kind, facts), facts)

    def _limits(self, request: SlotRequest) -> HostLimits:
        """Those of one start.  Raises ConfigError."""
        try:
            host = host_limits(self.ledger)
        except ConfigError:
            count_refusal(self.ledger.directory, "limits", at_once=True)
            raise
        limits = effective(host, max_browsers=request.max_browsers, min_memory=request.min_memory)
        bound = limits.memory(request.kind)
        if bound is not None:
            memory.check_possible(bound.value, bound.where)
        return limits

    def _without(self, error: OSError, kind: Kind, limits: HostLimits, waited: float) -> Slot:
        """A start without a slot, where nothing limits it.  Raises the error that says what is wrong."""
        if error.errno in (errno.EMFILE, errno.ENFILE):  # then the browser could not be started, either
            limit = limit_of_errno(error.errno, str(self.ledger.gate))
            raise LimitError(f"The slots in {self.ledger.gate} cannot be counted. {limit}") from None
        if kind != "adopted" and (drained := drain.present(self.ledger)) is not None:
            raise HostBusy(
                f"Nothing may be started now: {drained}.", "draining", waited=waited
            ) from None
        if not limits.is_set(kind):
            return Slot(None, {}, waited)
        bound = limits.most(kind) or limits.memory(kind)
        where = bound.where if bound is not None else ""
        if isinstance(error, BlockingIOError):
            pid = self._files.mutex.holder()
            raise HostBusy(
                f"Whether a browser may start could not be decided: a process, probably {pid}, holds "
                f"the lock {self.ledger.gate / 'lock'}, and others wait for it in vain. It is stopped, "
                f"or hangs; {where} is set.",
                limit=bound.value if bound is not None else None,
                limit_source=where,
                waited=waited,
            ) from None
        place = self.ledger.gate
        if limit := limit_of_errno(error.errno or 0, str(place)):
            raise LimitError(
                f"The slots in {place} cannot be counted, and {where} is set. {limit}"
            ) from None
        raise LedgerError(
            f"The slots in {place} cannot be counted, and {where} is set: {error.strerror or error}. "
            "Set BROWSERKEEPER_STATE_DIR to a directory on a local file system, or remove the limit."
        ) from None

    # -- looking, without taking

    def state(self) -> GateState:
        """Limits, holders and those that wait.  Changes nothing, and does not wait for long.

        Raises LimitError where this process may open no more files.
        """
        return self._files.state()

    def held_back_outside(self, launch: SlotRequest) -> list[HeldBack]:
        """Each start that is not of the pool of this launch and cannot go ahead now, since the host is
        full or its memory is short; in the order of the queue.

        Those that are work and wait for a slot of the same limit.  Where the files cannot be read none
        waits, and neither where nothing may start at all.  Takes no lock.
        """
        return self._files.held_back_outside(launch)

    def explain(self, request: SlotRequest) -> HostBusy:
        """What such a launch of a pool waits for now.  Raises LimitError where this process may open no
        more files."""
        return explain(self.state(), request)

    def let_decisions_end(self) -> None:
        """Wait until each decision is taken that began before, and that may not know of a drain.  Such a
        start has a slot then, or it decides anew.

        Takes less than a millisecond; MUTEX_PATIENCE at the most, where a process was stopped in its
        decision.  Raises nothing: where the gate's lock cannot be had, no slot can be taken, either.
        """
        with contextlib.suppress(OSError), self._files.locked(time.monotonic() + MUTEX_PATIENCE):
            pass

    # -- bells

    def ring_first(self) -> None:
        """Wake the first start that waits, since something has changed: a limit, the end of a drain."""
        self._files.ring_first()

    def ring_pools(self) -> None:
        """Have all pools look at once whether the host is drained.  Raises nothing."""
        self._files.ask_pools_to_yield()

    def yield_bell(self) -> Bell:
        """A bell for a pool that could give up an idle browser.

        Its ``fileno()`` becomes readable when a program starts to wait; call ``clear()`` then, and
        ``remove()`` in the end.  Raises OSError.
        """
        return self._files.yield_bell()


__all__ = ["Gate", "GateState", "SlotRequest"]
