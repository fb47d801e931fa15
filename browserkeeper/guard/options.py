"""The guard as a program: its options, its exit statuses and the error of a failed start."""

from __future__ import annotations

SENTINEL = "BROWSERKEEPER_STARTS"
"""The environment variable of a process that is to be a guard; the guard removes it at once."""
START = "--browserkeeper-start"
"""The first argument of a frozen program that is to run a program of ours instead of its own."""

AUTO, REQUIRED = "auto", "required"
"""Values of ``--isolation``: isolate the driver where the system allows it; fail where it does not."""
ISOLATED = "isolated"
"""In reports: the driver was in a network namespace of its own."""

TIMED_OUT, CANNOT_RUN, NOT_FOUND = 124, 126, 127
"""Exit statuses, as those of timeout(1) and of the shell."""


class Failure(Exception):
    """The session cannot be started: the step that failed and the operating system's reason."""

    def __init__(self, where: str, error: OSError):
        super().__init__(where, error)
        self.where, self.error = where, error

    @property
    def exit_status(self) -> int:
        """The status that a shell would give."""
        missing = self.where == "exec" and self.error.errno == 2
        return NOT_FOUND if missing else CANNOT_RUN


class Options:
    """The command line: ``--name value`` pairs up to ``--``, then the command to guard."""

    def __init__(self, argv: list[str]):
        split = argv.index("--")
        given = dict(zip(argv[:split:2], argv[1:split:2], strict=True))

        def number(name: str, default: float) -> float:
            return float(given.pop(name, default))

        self.command = argv[split + 1 :]
        self.owner = int(number("--owner", 0))  # pid; 0: there is none, the guard is an init
        self.control_fd = int(number("--control-fd", -1))  # messages of the owner; EOF ends the session
        self.status_fd = int(number("--status-fd", -1))  # events for the owner: a JSON object a line
        self.timeout = number("--timeout", 0)  # seconds from now to the end; 0: none
        # Seconds in which a command, and what it has started, is asked to end (``grace.py``).
        self.grace = number("--grace", 0)
        # Seconds between SIGTERM and SIGKILL at every end; 0: SIGKILL at once.
        self.stop_grace_period = number("--stop-grace-period", 0)
        self.kill_deadline = number("--kill-deadline", 10)  # seconds until survivors are reported
        self.foreground = bool(number("--foreground", 0))  # a command of the user's, not a driver
        self.tmpdir = given.pop("--tmpdir", "")  # made, exported as TMPDIR, removed
        self.record = given.pop("--record", "")  # the ledger's file while the session lives
        self.lock = given.pop("--lock", "")  # a file that is locked while the guards live
        self.slot = given.pop("--slot", "")  # the session's place in the host's limit, to be locked
        self.history = given.pop("--history", "")  # the ledger's file that takes its place
        self.log = given.pop("--log", "")  # the command's output is appended to this file
        self.keep_log = given.pop("--keep-log", "")  # the log is appended to this file at the end
        self.downloads = given.pop("--downloads", "")  # the user's directory for downloads
        # Of the names of the browser's partial downloads; "": they are not looked for.
        self.partial_suffix = given.pop("--partial-suffix", "")
        self.max_download = int(number("--max-download", 0))  # bytes of all downloads; 0: no bound
        # Seconds that the owner has to cancel a download after the bound was passed.
        self.max_download_grace = number("--max-download-grace", 0)
        self.status_file = given.pop("--status-file", "")  # the command writes here how it ended
        self.display = given.pop("--display", "")  # an X server to start for the command: its program
        self.screen = given.pop("--screen", "")  # its screen, as WIDTHxHEIGHTxDEPTH
        self.profile = given.pop("--profile", "")  # a profile directory of the user's, to be locked
        # AUTO, REQUIRED, or for a driver that is not to be isolated the reason; "": not for a driver.
        self.isolation = given.pop("--isolation", "")
        self.browser = given.pop("--browser", "")  # the program that an isolated driver's stand-in means
        self.network_fd = int(number("--network-fd", -1))  # gets sockets of the driver's network
        self.cgroup = given.pop("--cgroup", "")  # a leaf to make, use and remove
        if given:
            raise SystemExit(f"guard: unknown options {sorted(given)}")
