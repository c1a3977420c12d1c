"""The tests, and `lib`, through which they use the library.

`lib.NAME` is any top-level name of the library, in any of its modules. The same tests run
on a copy in one file, whose module CHATGPTLIB_UNDER_TEST names. A file may lack extras: a
test is skipped if it uses a name of a missing extra, or if the core raises the ConfigError
which says that an extra is missing.
"""

import functools
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

_root = importlib.import_module(os.environ.get("CHATGPTLIB_UNDER_TEST", "chatgptlib"))


def _is_partial():
    """Whether the library is a file that lacks extras."""
    if hasattr(_root, "__path__"):
        return False
    made = re.search(r"(?m)^# Made by `(.*) -o FILE`", Path(_root.__file__).read_text("utf-8"))
    return bool(made) and not made[1].endswith(" --with all")


def _skip(needed):
    pytest.skip(f"{_root.__name__} was made without {needed}", allow_module_level=True)


class Library:
    """The names of all modules of the library as attributes of one object."""

    def __init__(self):
        self.modules = [_root]
        for found in pkgutil.walk_packages(getattr(_root, "__path__", []), f"{_root.__name__}."):
            if not found.name.endswith("__main__"):
                self.modules.append(importlib.import_module(found.name))
        if not hasattr(_root, "OfflineServer"):
            self.modules += _offline_server()

    @property
    def name(self):
        return _root.__name__

    def __getattr__(self, name):
        for module in self.modules:
            if hasattr(module, name):
                return getattr(module, name)
        if _is_partial() and not name.startswith("__"):
            _skip(name)
        raise AttributeError(name)


def _skip_where_an_extra_is_needed():
    """Skip a test when the core raises the error of a missing extra, even if it is caught."""
    refuse = _root.ConfigError.__init__

    @functools.wraps(refuse)
    def skip_or_refuse(self, *args):
        if missing := re.search(r" was made without (\w+): ", str(args)):
            _skip(missing[1])
        refuse(self, *args)

    _root.ConfigError.__init__ = skip_or_refuse


def _offline_server():
    """The modules of the offline server, which the tests of a file without extras need too."""
    folder = Path(__file__).parent.parent / "chatgptlib" / "extras"
    for name in ("offline_replies", "offline"):
        path = folder / f"{name}.py"
        from_core = re.findall(r"^ *from \.\.(\w+) import", path.read_text("utf-8"), re.M)
        for other in ("extras", *from_core):  # its package, and the modules that it imports
            sys.modules[f"{_root.__name__}.{other}"] = _root
        spec = importlib.util.spec_from_file_location(f"{_root.__name__}.extras.{name}", path)
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def waits_of(client):
    """Let the retries of a client not wait. Returns the list that collects their waits."""
    waits = []
    client._sleep = waits.append
    return waits


def loaded_by(code):
    """The modules that this code makes a fresh Python load."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    code = f"import sys; before = {{*sys.modules}}\n{code}\nprint(*{{*sys.modules}} - before)"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


lib = Library()
if _is_partial():
    _skip_where_an_extra_is_needed()
