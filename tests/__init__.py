"""The tests, and the one place through which they take the library.

`lib.NAME` is any top-level name of the library, whichever of its modules holds it. The
same suite tests a copy in one file: name its module in CHATGPTLIB_UNDER_TEST.
"""

import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

_root = importlib.import_module(os.environ.get("CHATGPTLIB_UNDER_TEST", "chatgptlib"))


class Library:
    """The names of all the library's modules in one place, as a single file has them."""

    def __init__(self):
        self.modules = [_root]
        for found in pkgutil.walk_packages(getattr(_root, "__path__", []), f"{_root.__name__}."):
            if not found.name.endswith("__main__"):
                self.modules.append(importlib.import_module(found.name))
        if not hasattr(_root, "OfflineServer"):
            self.modules.append(_offline_server())

    @property
    def name(self):
        return _root.__name__

    def __getattr__(self, name):
        for module in self.modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)


def _offline_server():
    """The offline server, for a copy in one file, which comes without it."""
    for name in ("models", "extras"):  # where it imports from, and what it is in
        sys.modules[f"{_root.__name__}.{name}"] = _root
    path = Path(__file__).parent.parent / "chatgptlib" / "extras" / "offline.py"
    spec = importlib.util.spec_from_file_location(f"{_root.__name__}.extras.offline", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
