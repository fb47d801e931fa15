"""The trace of a test (``--keeper-trace``): one page with the commands, screenshots, console messages
and requests of one browser.

    recorder.py   the commands of one driver, as they come; what is kept is bounded
    words.py      what is shown of a command: its name and its parameters, without secrets
    events.py     console, requests, dialogs and screenshots, over a BiDi connection of our own
    trace.py      one browser's trace, from the start of its test to its end
    of_test.py    the traces of one test: its phases, and when their pages are saved
    page.py       the page (trace.html, trace.css)

What may live here: what records a test and shows the record.  A trace never changes what the test
sees: it raises nothing of its own, sends no classic command while the test runs, and leaves dialogs as
they are.
"""
