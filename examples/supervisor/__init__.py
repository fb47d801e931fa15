"""A worker under supervisord, which stops the whole group: ``python -m examples.supervisor``.

supervisord.conf    the part to copy, with the reasons
__main__.py         a Redis and a supervisord to try it with: start, kill, restart, stop
"""
