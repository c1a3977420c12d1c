"""The tests, and the one place through which they take the library.

`lib.NAME` is any top-level name of the library, whichever of its modules holds it. The
same suite tests a copy in one file: name its module in CHATGPTLIB_UNDER_TEST. Where the
file was made without some extras, the tests that need one of them are skipped: those that
ask for a name that is not there, and those that make the core say that it needs an extra.
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
    """Whether the library is a file that was made without some of the extras."""
    if hasattr(_root, "__path__"):
        return False
    made = re.search(r"(?m)^# Made by `(.*) -o FILE`", Path(_root.__file__).read_text("utf-8"))
    return bool(made) and not made[1].endswith(" --with all")


def _skip(needed):
    pytest.skip(f"{_root.__name__} was made without {needed}", allow_module_level=True)


class Library:
    """The names of all the library's modules in one place, as a single file has them."""

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
    """Skip a test when the core refuses what an extra would do, whoever catches that."""
    refuse = _root.ConfigError.__init__

    @functools.wraps(refuse)
    def skip_or_refuse(self, *args):
        if missing := re.search(r" was made without (\w+): ", str(args)):
            _skip(missing[1])
        refuse(self, *args)

    _root.ConfigError.__init__ = skip_or_refuse


def _offline_server():
    """The two modules of the offline server, for a copy in one file that comes without them."""
    folder = Path(__file__).parent.parent / "chatgptlib" / "extras"
    for name in ("offline_replies", "offline"):
        path = folder / f"{name}.py"
        from_core = re.findall(r"^ *from \.\.(\w+) import", path.read_text("utf-8"), re.M)
        for other in ("extras", *from_core):  # what it is in, and what it imports from
            sys.modules[f"{_root.__name__}.{other}"] = _root
        spec = importlib.util.spec_from_file_location(f"{_root.__name__}.extras.{name}", path)
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def waits_of(client):
    """Make the retries of a client wait no time; the list of the waits, in seconds."""
    waits = []
    client._sleep = waits.append
    return waits


def loaded_by(code):
    """The modules that a fresh Python loads for this code, and would not without it."""
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
