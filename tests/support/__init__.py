"""What tests of several folders share.  Helpers of one folder lie beside its tests.

    witness.py       what is left after a session, found without any code of browserkeeper
    waiting.py       wait_until(): how tests wait
    owners.py        owner processes: programs that hold sessions and are killed
    needs.py         markers by what a test needs, and the reasons for a skip
    clock.py         limits that scale with a measured start of the browser
    cli.py           the command line, run in this process and in others
    ledger.py        records and histories to look at
    watching.py      a `browserkeeper watch` that is running
    guards.py        guards with plans for tiny programs, and guards with a part taken out
    fake_browser.py  a pool's browser without a process
    faults.py        what the soak does to a lease's browser
    inner_pytest.py  runs of pytest inside of tests
    docker_rig.py    a Docker daemon with an image made of this machine
    other_user.py    what another local user may do
    results.py       the results of a run as JSON lines, for scripts/lanes.py

The autouse fixtures ``state_dir`` and ``nothing_left`` are in tests/conftest.py.
"""
