"""What users' options may hold: the policy, and the check of one configuration against it.

Selenium's options and the arguments of ``browser()`` can hold anything that a browser, its driver or
Selenium understands.  Some of it undoes what a session promises, or contradicts another argument.
``policy.py`` is the table of those, with reason and remedy, and has no code; ``check.py`` reads the
options and raises ConfigError.  Selenium is imported only where options
of its classes were given.
"""
