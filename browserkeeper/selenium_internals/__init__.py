"""Selenium's private names that browserkeeper uses, and the versions of Selenium that have them.

``known.py`` has the table of the names and the check, which runs when this package is imported and
raises SeleniumVersionError.  ``private.py`` is the only module of browserkeeper that uses such a name;
all others go through its functions and base classes.  A private name that a new version of Selenium
has renamed is so found at the import, by its name, and is mended in one place.

``import browserkeeper`` does not import this package: it imports Selenium.
"""

from .known import require

require()
