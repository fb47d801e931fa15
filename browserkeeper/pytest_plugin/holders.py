"""Which Python object holds on to a child process: a module's variable, a class, a fixture, a thread …

A suite that keeps a driver in a global variable, in a cache or on pytest's ``config`` means it to
outlive the test that made it.  The search starts at the objects that stand for the process
(``subprocess.Popen``, ``multiprocessing.Process``, anything with its ``pid``) and follows references
backwards until it meets something that outlives the test.  It takes some tenths of a second, so it is
made only if a test seems to have leaked.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import sys
import threading
import types
import weakref
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import pytest

from ..process.child import ChildProcess

DEPTH = 40
"""References from the process's object to its holder; Selenium's driver in a list has five."""

UNKNOWN = "unknown"
"""Held by something that Python's garbage collector does not show: a local variable of a running thread,
an ``atexit`` callback, a C extension."""

THE_TEST = "the test"
"""Held by the test alone: by its class's instance, or by the locals of its failure."""

Holder = pytest.FixtureDef[Any] | str
"""A fixture of a wider scope, or a name such as ``shop.browsers.DRIVER``, UNKNOWN or THE_TEST."""

_OF_THE_TEST = (types.TracebackType, BaseException, pytest.Item, pytest.FixtureRequest)
"""What they hold goes with the test: a failed test's locals, an instance of its class."""
_OF_THE_RUN = (pytest.Config, pytest.Session, pytest.Collector, pytest.PytestPluginManager)
_ONLY_NUMBERS = ("browserkeeper", "psutil")
"""Packages whose objects have the pids of processes that are not theirs."""
_HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: a class that is not built in."""
_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def find(pid: int, old_threads: AbstractSet[int]) -> Holder | Literal[""]:
    """What holds the child: something that outlives the test, or THE_TEST; "" if nothing does.

    ``old_threads`` are the native ids of the threads that were there before the test.
    """
    gc.unfreeze()  # what a suite has frozen (gc.freeze) would be missed; the run only gets slower
    gc.collect()
    objects = [each for each in gc.get_objects() if _stands_for(each, pid)]
    return _Search(objects, old_threads).run() if objects else ""


def _stands_for(thing: object, pid: int) -> bool:
    """Is it an object for the process: of one of the known classes, or with an attribute ``pid``?

    Runs no code of other people's: not isinstance(), which asks proxies for their __class__, nor
    getattr() for a class that is not known.
    """
    kind = type(thing)
    if not kind.__flags__ & _HEAP_TYPE:
        return False
    if issubclass(kind, _class("subprocess", "Popen")):
        is_over = getattr(thing, "returncode", None) is not None  # then another may have the pid
        return getattr(thing, "pid", None) == pid and not is_over
    if issubclass(kind, _class("multiprocessing.process", "BaseProcess")):
        return getattr(getattr(thing, "_popen", None), "pid", None) == pid
    module: object = kind.__module__  # Cython's classes have a descriptor there
    top = module.partition(".")[0] if type(module) is str else ""
    if top in _ONLY_NUMBERS and kind is not ChildProcess:
        return False
    for held in gc.get_referents(thing):
        if type(held) is dict and (held.get("pid") == pid or held.get("_pid") == pid):
            return True
        if type(held) is int and held == pid:
            return any(_attribute(thing, name) == pid for name in ("pid", "_pid"))
    return False


def _class(module: str, name: str) -> type:
    """A class that somebody has imported; one without instances if nobody has."""
    found: type = getattr(sys.modules.get(module), name, _Nothing)
    return found


class _Nothing:
    """No object is one."""


def _attribute(thing: object, name: str) -> object:
    with contextlib.suppress(AttributeError):
        return object.__getattribute__(thing, name)
    return None


class _Search:
    """One search, breadth first, from the objects of a process to their holder."""

    def __init__(self, objects: list[Any], old_threads: AbstractSet[int]):
        self._level = objects
        self._old_threads = old_threads
        self._seen = {id(each): each for each in objects}
        self._registries = _registries()
        self._running = _running_frames()
        self._is_of_the_test = self._was_dropped = False

    def run(self) -> Holder | Literal[""]:
        for _ in range(DEPTH):
            referrers = gc.get_referrers(*self._level)
            ours = {id(referrers), id(self._level), id(self._seen), id(self.__dict__), id(self)}
            following: list[Any] = []
            for each in referrers:
                if id(each) in ours or id(each) in self._seen:
                    continue
                holder = self._holder(each)
                if holder:
                    return holder
                if holder is None:
                    self._seen[id(each)] = each
                    # A finalizer lives as long as the object that it is for.
                    following.append(each.weakref() if type(each) is _FINALIZER_INFO else each)
            if not following:
                break
            self._level = following
        if self._is_of_the_test:
            return THE_TEST
        return "" if self._was_dropped else UNKNOWN

    def _holder(self, thing: Any) -> Holder | Literal[""] | None:
        """The holder; "" if nothing beyond this object counts; None if its referrers must be asked."""
        kind = type(thing)
        name: Holder | None = None
        if issubclass(kind, types.FrameType) and not thing.f_code.co_flags & _SUSPENDABLE:
            name = self._running.get(id(thing), "")
            self._is_of_the_test |= id(thing) not in self._running
        elif issubclass(kind, _OF_THE_TEST):
            name, self._is_of_the_test = "", True
        elif id(thing) in self._registries:
            name, self._was_dropped = "", True
        elif issubclass(kind, threading.Thread) and thing.is_alive():
            is_old = thing.native_id in self._old_threads
            name = f"thread:{thing.name}" if is_old else ""
            self._is_of_the_test |= not is_old
        elif issubclass(kind, pytest.FixtureDef):
            name = thing if thing.scope != "function" and thing.cached_result is not None else None
        elif issubclass(kind, _OF_THE_RUN):
            name = f"pytest.{kind.__name__}"
        elif issubclass(kind, types.ModuleType):
            name = self._variable(vars(thing), thing.__name__)
        elif kind is dict and "__builtins__" in thing and type(thing.get("__name__")) is str:
            name = self._variable(thing, thing["__name__"])
        elif issubclass(kind, type) and "<locals>" not in thing.__qualname__:
            name = self._variable(vars(thing), f"{thing.__module__}.{thing.__qualname__}")
        return name

    def _variable(self, namespace: Mapping[str, Any], owner: str) -> Holder | Literal[""]:
        """The full name of the variable that leads to the process.  Our own package's hold nothing."""
        if owner.partition(".")[0] == (__package__ or "").partition(".")[0]:
            return ""
        names = [name for name, value in list(namespace.items()) if id(value) in self._seen]
        return f"{owner}.{names[0]}" if names else owner


_FINALIZER_INFO: Any = getattr(weakref.finalize, "_Info", None)


def _registries() -> set[int]:
    """The ids of the standard library's own lists of child processes, which hold every one of them."""
    found = [
        getattr(sys.modules.get("subprocess"), "_active", None),
        getattr(sys.modules.get("multiprocessing.process"), "_children", None),
    ]
    return {id(each) for each in found if each is not None}


def _running_frames() -> dict[int, Holder | Literal[""]]:
    """The frames that run now, with the name of their thread; "" for this thread.  (From Python 3.11 on
    the garbage collector does not show what they hold.)"""
    names = {thread.ident: f"thread:{thread.name}" for thread in threading.enumerate()}
    found: dict[int, Holder | Literal[""]] = {}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 # there is no public way
        step: types.FrameType | None = frame
        while step is not None:
            mine = ident == threading.get_ident()
            found[id(step)] = "" if mine else names.get(ident, f"thread:{ident}")
            step = step.f_back
    return found
