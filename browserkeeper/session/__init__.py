"""One browser from its start to its verified end: launch, commands, ending; and ``adopt()``.

``factory.py`` has ``browser()``, ``session.py`` what users see of a session, ``control.py`` its internal
side; ``launch.py``, ``commands.py`` and ``ending.py`` are its phases.  ``environment.py`` is the
environment of driver and browser, ``user_directories.py`` links what the user has put there to be read.
``browser_exit.py`` notices a browser that ends during its launch.  ``adopted.py`` is the session of a
driver that other code started, and ``adoptable.py`` finds the processes of that driver.  ``call.py``
keeps exceptions from outside apart from those of a session; ``apart.py`` makes the end safe in signal
handlers; ``asynchronous.py`` runs what blocks in threads, for asyncio.
"""

from .factory import browser
from .session import BrowserSession, control_of, session_of

__all__ = ["BrowserSession", "browser", "control_of", "session_of"]
