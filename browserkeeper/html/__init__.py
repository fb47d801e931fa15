"""HTML pages, by Jinja2 (``browserkeeper[html]``): whole in one file, without a script, readable from
``file://``.

    page.py           renders a template with autoescape and a Content-Security-Policy (base.html)
    timeline_page.py  the page of ``browserkeeper report --html`` (timeline.html, timeline.css)
    timeline_axis.py  what that page draws along its time axis

What may live here: the pages of the layers below, and what pages of other layers share.  Other programs
choose the texts on a page: names of processes, labels, addresses.  So texts get into a page
only through a template, which escapes them; nothing here marks a text of theirs as safe.
"""
