"""The end of a session: kill until the certificate is there, then remove its files and report."""

from __future__ import annotations

import os

from .downloads import RECENT
from .files import ignore_errors, read_status_file, remove_stray_shared_memory
from .grace import end_with_grace
from .trees import try_to_remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from .guard import Guard
else:
    import _signal as signal

ASKING_PAUSE = 0.02  # seconds between looks at a command that was asked to end
LONGEST_PAUSE = 0.02  # seconds between rounds of killing
PAUSE_WHEN_STUCK = 0.25  # and after the kill deadline
UNSEEN = "a process of the session is left that /proc does not show"
UNSEEN_TIMEOUT = 1.0  # seconds after the kill deadline until it is reported without a survivor


def tear_down(guard: Guard) -> None:
    """Kill and reap until the containment certifies that nothing is left.

    Reports survivors at the kill deadline, but goes on for as long as it takes: by its exit a guard
    would give up its descendants.  In the end the certificate is withheld where the containment cannot
    see everything.
    """
    options, report, members = guard.options, guard.report, guard.members
    _ask(guard)
    began = report.age()
    guard.look()
    _look_at_downloads(guard)
    members.tearing_down = True
    pause, longest = guard.containment.shortest_pause, LONGEST_PAUSE
    while True:
        guard.containment.kill(members)
        report.certificate = _wait_for_certificate(guard, pause)
        if report.certificate:
            break
        pause = min(pause * 2, longest)
        late = report.age() - began - options.kill_deadline
        if longest == LONGEST_PAUSE and late > 0:
            survivors = guard.containment.survivors()
            # Where no process is seen any more, the next round mostly gives the certificate.
            if survivors or late > UNSEEN_TIMEOUT:
                facts = guard.facts(survivors)
                if not survivors:
                    facts["problems"] = [*facts["problems"], UNSEEN]
                guard.owner.send("stuck", report=facts)
                longest = PAUSE_WHEN_STUCK
    members.end_all()
    if unseen := guard.containment.unseen():
        report.certificate = None
        report.problems.append(unseen)
    if hidden := members.hidden():
        report.notes.append(f"{hidden} processes are listed without a name, since /proc hid them")
    report.seconds["killing"] = report.age() - began


def _look_at_downloads(guard: Guard) -> None:
    """Note which partial files the session's processes write; blocks for RECENT at the most."""
    until = guard.report.age() + RECENT
    guard.downloads.look(guard.members.living)
    while guard.members.living and guard.downloads.may_be_reopened() and guard.report.age() < until:
        guard.signals.wait(LONGEST_PAUSE)
        guard.downloads.look(guard.members.living)


def _wait_for_certificate(guard: Guard, seconds: float) -> str | None:
    """The certificate, as soon as there is one, or None after so many seconds."""
    until = guard.report.age() + seconds
    while True:
        certificate = guard.containment.certify(guard.members)
        left = until - guard.report.age()
        if certificate or left <= 0:
            return certificate
        guard.signals.wait(left)


def _has_children(guard: Guard, seconds: float) -> bool:
    """Reap for so many seconds; False as soon as the guard has no child.

    Not by the certificate: some containments give none before they have killed.
    """
    until = guard.report.age() + seconds
    while guard.members.reap():
        left = until - guard.report.age()
        if left <= 0:
            return True
        guard.signals.wait(left)
    return False


def _ask(guard: Guard) -> None:
    """What may end by itself before the kill is asked to, for a limited time."""
    options = guard.options
    if options.grace or options.foreground:
        end_with_grace(guard)
    if guard.ask_to_quit is not None:
        try:
            guard.ask_to_quit()
        except Exception as error:  # its driver has ended; or a bug, which must not become a leak
            guard.report.notes.append(f"the browser could not be asked to quit: {error!r}")
    if options.stop_grace_period:
        _ask_all(guard)


def _ask_all(guard: Guard) -> None:
    """SIGTERM to all, and wait for their end for the stop grace period.

    The command has to end something that no local process shows: a session on another machine.  It
    is the guard's only descendant, a child by birth, or by adoption in the standby guard whose
    primary guard was killed; in that case the kernel has sent it SIGTERM already.
    """
    began = guard.report.age()
    for stat in guard.containment.find():
        for number in (signal.SIGTERM, signal.SIGCONT):
            ignore_errors(lambda pid=stat.pid, n=number: os.kill(pid, n))  # type: ignore[misc]
    until = began + guard.options.stop_grace_period
    while _has_children(guard, ASKING_PAUSE) and guard.report.age() < until:
        pass
    guard.report.seconds["stop_grace_period"] = guard.report.age() - began


def retire(guard: Guard) -> None:
    """After the certificate: remove the files, replace the record by the history, report the end."""
    options, report = guard.options, guard.report
    began = report.age()
    status = read_status_file(options.status_file) if options.status_file else None
    guard.log.finish(report.notes.append)
    log_tail = guard.log.tail()
    _remove_files(guard)
    report.seconds["files"] = report.age() - began
    # ``account`` is the status file's content; the name stays, since older versions read it.
    facts = {**guard.facts([]), "account": status}
    if problem := guard.record.retire(facts):
        facts["notes"] = [*facts["notes"], problem]
    # Until its start is done, the owner has the slot: it may try again.
    guard.slot.free(is_handed_over=guard.slot.is_alone or guard.owner.is_dead())
    # The history does not get the log, which may hold addresses of pages.
    guard.owner.send("ended", report={**facts, "log_tail": log_tail})


def _remove_files(guard: Guard) -> None:
    report, containment = guard.report, guard.containment
    if guard.profile is not None and report.certificate:
        guard.profile.remove_locks(guard.members, report.born_epoch)
    tmpdir = guard.options.tmpdir if guard.made_tmpdir else ""
    report.partial_downloads, problems = guard.downloads.finish()  # some may be in TMPDIR
    report.problems += problems
    report.files += sum(bool(one["removed"]) for one in report.partial_downloads)
    report.bytes += sum(one["bytes"] for one in report.partial_downloads if one["removed"])
    if report.certificate:
        _remove_display_files(guard, tmpdir)  # by a file in the TMPDIR
    for path in (tmpdir, *containment.profiles()):
        if path:
            made = guard.tmpdir if path == tmpdir else None
            files, size, left = try_to_remove(path, made)
            report.files, report.bytes = report.files + files, report.bytes + size
            if left:
                what = "TMPDIR" if path == tmpdir else "temporary profile"
                report.problems.append(f"{what} not removed: {left}")
    if containment.owns_shared_memory:
        number, notes = remove_stray_shared_memory(report.born_epoch)
        report.files += number
        report.notes += notes
    try:
        guard.cgroup.remove()
    except FileNotFoundError:
        pass
    except OSError as error:
        report.problems.append(f"cgroup: {error}")


def _remove_display_files(guard: Guard, tmpdir: str) -> None:
    """Of X servers that the session has had: its own, and those that a command has started."""
    report, servers = guard.report, guard.members.x_servers
    if guard.display is None and not servers:
        return
    from .displays import noted_display, remove_display_files

    number, problems = remove_display_files(servers, report.born_epoch) if servers else (0, [])
    if guard.display is not None:
        only, pid = noted_display(tmpdir) or (None, guard.display.pid)
        own = remove_display_files({pid}, report.born_epoch, only)
        number, problems = number + own[0], [*problems, *own[1]]
    report.files += number
    report.problems += problems
