"""The gate: everything that has to hold of this checkout, each in an environment of its own.

It checks the style and the types; builds the sdist and the wheel; runs the wheel alone; and
runs the whole suite on every Python from 3.10 up that it finds, on old dependencies, on the
library as one file, with all extras and without, and once more for its coverage. It installs
what it needs into a folder that it leaves no trace of, tells what ran, and ends with the
closing line of a suite.
"""

from __future__ import annotations

import configparser
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

VERSIONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
WHEEL_LIMIT = 190_000  # bytes: it is to become less, not more; 100,000 was the aim
CORE_LIMITS = 4_850, 203_000  # lines and bytes of the file without extras; 3,300, 130,000 the aim
FILES = {"without extras": [], "with all extras": ["--with", "all"]}
OLD_PAIRS = [["requests==2.31.0", "urllib3==2.0.7"]]  # beside the floors: Ubuntu 24.04
OF_EXTRAS = {  # test modules that need an extra in each test; any other has to test the core
    "test_conversations", "test_glific", "test_kept_tools", "test_offline_api", "test_rest",
    "test_schema", "test_schema_types", "test_structured", "test_structured_answers", "test_tools",
    "test_tools_results", "test_tools_rounds", "test_webhooks",
}  # fmt: skip
OF_PROCESSES = [  # test modules of the command line and of checkers: the same with any requests
    "test_batch", "test_batch_files", "test_batch_kills", "test_interactive", "test_main",
    "test_offline_serve", "test_typing", "test_vendor",
]  # fmt: skip
QUICK_START = "Write a tagline for an ice cream shop."
STRICT = ("--strict", "--config-file=", "--no-error-summary")  # for mypy
BARE = ("requests", "pytest", "responses", "hypothesis")  # what the tests of the file need
SERVER = [f"chatgptlib/extras/{name}.py" for name in ("offline_replies", "offline")]
AT_ONCE = os.cpu_count() or 1  # suites

HOME = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(
        ("OPENAI_", "CHATGPTLIB_", "PYTEST_", "PYTHONPATH", "VIRTUAL_ENV", "COVERAGE_")
    )
} | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"}


class Failed(Exception):
    """A command of the gate failed; the text is what it printed."""


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command, and return what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=ENVIRONMENT | environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"$ {' '.join(words)}\n{done.stdout}\n(exit status {done.returncode})")
    return done.stdout


def environment_at(folder: Path, python: object, *packages: object) -> Path:
    """Make a virtual environment with these packages; its Python."""
    run(python, "-m", "venv", folder, cwd=HOME)
    inside = folder / "bin" / "python"
    run(inside, "-m", "pip", "install", "--quiet", *packages, cwd=HOME)
    return inside


def pythons() -> dict[str, str]:
    """The interpreters on PATH or under pyenv, by their full version."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    code = "import ensurepip, sys, venv; print('.'.join(map(str, sys.version_info[:3])))"
    found: dict[str, str] = {}
    for version in VERSIONS:
        on_path = shutil.which(f"python{version}")
        installed = sorted(pyenv.glob(f"{version}.*/bin/python"), key=_patch, reverse=True)
        for python in [*([on_path] if on_path else []), *installed]:
            try:  # a shim of pyenv's may stand there for nothing
                full = run(python, "-c", code, cwd=HOME).strip()
            except (Failed, OSError):
                continue
            found[full] = str(python)
            break
    if not found:
        raise Failed(f"found none of Python {', '.join(VERSIONS)}")
    return found


def _patch(python: Path) -> int:
    """The last number of the version that a folder of pyenv's is named for."""
    return int("".join(filter(str.isdigit, python.parts[-3].split(".")[-1])) or 0)


def old_dependencies() -> list[list[str]]:
    """The oldest dependencies that setup.cfg allows, and the other pairs."""
    config = configparser.ConfigParser()
    config.read(HOME / "setup.cfg")
    floors = config["options"]["install_requires"].replace(">=", "==").replace(" ", "").split()
    return [floors, *OLD_PAIRS]


def suite(python: Path, cwd: Path, *before: str, **environment: str) -> str:
    """Run the tests with every warning an error; pytest's closing line."""
    told = run(python, *before, "-m", "pytest", "-q", "-p", "no:cacheprovider",
               cwd=cwd, PYTHONWARNINGS="error", **environment)  # fmt: skip
    return told.strip().splitlines()[-1]


class Gate:
    """The steps, in a folder that goes away."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.checkout = room / "checkout"
        try:  # what is committed, and nothing else
            run("git", "clone", "--quiet", HOME, self.checkout, cwd=room)
        except (Failed, OSError):
            shutil.copytree(HOME, self.checkout)
        else:
            if run("git", "status", "--porcelain", cwd=HOME):
                self.note("changes that are not committed", "not looked at")
        self.tools = environment_at(room / "tools", sys.executable, f"{self.checkout}[dev]")

    def tool(self, *command: object, cwd: Path | None = None, **environment: str) -> str:
        return run(self.tools, "-m", *command, cwd=cwd or self.checkout, **environment)

    def note(self, what: str, outcome: str) -> None:
        print(f"{what:48}  {outcome}", flush=True)

    def style(self) -> None:
        self.tool("ruff", "check", ".")
        self.tool("ruff", "format", "--check", ".")
        self.note("ruff check, ruff format", "clean")

    def types(self) -> None:
        self.tool("mypy")
        self.tool("pyright", "--pythonpath", self.tools)
        self.note("mypy --strict, pyright strict: the package", "clean")

    def built(self) -> None:
        """Build, and run what was built: the wheel alone, and the files that it makes."""
        self.tool("build", "--outdir", self.room / "dist", ".")
        (self.wheel,), (sdist,) = (
            list((self.room / "dist").glob(end)) for end in ("*.whl", "*.tar.gz")
        )
        self.tool("twine", "check", "--strict", self.wheel, sdist)
        size = self.wheel.stat().st_size
        if size >= WHEEL_LIMIT:
            raise Failed(f"the wheel has {size} bytes, {WHEEL_LIMIT} are allowed")
        self.note("sdist and wheel: built, twine check", f"{size:,} bytes of wheel")

        # The tests of the sdist, where there is no package beside them to be taken instead.
        shutil.unpack_archive(sdist, self.room / "unpacked")
        (unpacked,) = (self.room / "unpacked").iterdir()
        self.beside = self.room / "beside"
        for name in ("tests", "README.md", "setup.cfg"):
            self.copy(unpacked / name, self.beside / name)

        python = environment_at(self.room / "wheel", sys.executable, self.wheel)
        answer = run(python, "-m", "chatgptlib", "--offline", QUICK_START, cwd=self.beside)
        if QUICK_START not in answer:
            raise Failed(f"the quick start of the wheel answered: {answer}")
        self.copy(self.beside / "tests" / "typed" / "right.py", self.room / "use.py")
        self.tool("mypy", *STRICT, "--python-executable", python, "use.py", cwd=self.room)
        self.note("the wheel alone: quick start, its types", "ok")

        self.files: dict[str, Path] = {}  # each beside what tests it
        for name, options in FILES.items():
            alone = self.room / name.replace(" ", "_")
            for needed in ("tests", "README.md", "setup.cfg", *SERVER):
                self.copy(unpacked / needed, alone / needed)
            file = self.files[name] = alone / "vendored_chat.py"
            run(python, "-m", "chatgptlib", "vendor", *options, "-o", file, cwd=self.beside)
            there = self.room / "of_checkout.py"
            self.tool("chatgptlib", "vendor", *options, "-o", there)
            data = file.read_bytes()
            if data != there.read_bytes():
                raise Failed(f"the wheel and the checkout give different files {name}")
            found = data.count(b"\n"), len(data)
            if not options and any(map(int.__gt__, found, CORE_LIMITS)):
                raise Failed(f"the file {name} has {found} lines and bytes, not {CORE_LIMITS}")
            self.note(
                f"the file {name}: wheel as checkout", "{:,} lines, {:,} bytes".format(*found)
            )

    def copy(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)

    def types_of_files(self) -> None:
        """As a project sees one that has it, and `requests`, and no stubs for that."""
        self.bare = environment_at(self.room / "bare", sys.executable, *BARE)
        for name, file in self.files.items():
            self.tool("mypy", *STRICT, "--python-executable", self.bare, file, cwd=self.room)
            config = file.with_name("pyrightconfig.json")
            config.write_text(f'{{"include": ["{file.name}"], "typeCheckingMode": "strict"}}')
            self.tool("pyright", "--pythonpath", self.bare, cwd=file.parent)
            config.unlink()
            self.note(f"mypy, pyright strict: the file {name}", "clean")

    def suites(self) -> str:
        """The suite in each environment, some at a time, each reported when it ends; the
        closing line of the one for the coverage."""
        found = pythons()
        missing = [one for one in VERSIONS if not any(full.startswith(one) for full in found)]
        self.note("Pythons found", ", ".join(found))
        self.note("Pythons not found", ", ".join(missing) or "none")
        jobs: dict[str, Callable[[], str]] = {
            f"Python {full}": partial(self._on, full, python)
            for full, python in found.items()
            if full != platform.python_version()  # which runs the suite for its coverage
        }
        first, python = next(iter(found.items()))
        for old in old_dependencies():
            what = ", ".join([f"Python {first}", *old])
            jobs[what] = partial(self._on_old, python, old)
        for name in self.files:
            jobs[f"the file {name}"] = partial(self._on_file, name)
        jobs["the package, with its coverage"] = self._on_tools
        failed: list[str] = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            started = {pool.submit(job): what for what, job in jobs.items()}
            for future in as_completed(started):
                try:
                    self.note(started[future], future.result())
                except Failed as error:
                    self.note(started[future], f"failed\n{error}")
                    failed.append(started[future])
        if failed:
            raise Failed(f"failed: {'; '.join(failed)}")
        self._no_test_is_missed()
        self.tool("coverage", "combine", "--quiet")
        self.tool("coverage", "report")  # fails below what setup.cfg asks for
        total = self.tool("coverage", "report", "--format=total").strip()
        self.note("branch coverage", f"{total} %")
        return list(started)[-1].result()

    def _on(self, name: str, python: str) -> str:
        inside = environment_at(self.room / name, python, f"{self.wheel}[test]")
        return suite(inside, self.beside)

    def _on_old(self, python: str, pair: list[str]) -> str:
        inside = environment_at(self.room / "_".join(pair), python, f"{self.wheel}[test]", *pair)
        passed_over = " ".join(f"--ignore=tests/{name}.py" for name in OF_PROCESSES)
        return suite(inside, self.beside, PYTEST_ADDOPTS=passed_over)

    def _on_file(self, name: str) -> str:
        folder, module = self.files[name].parent, self.files[name].stem
        return suite(self.bare, folder, CHATGPTLIB_UNDER_TEST=module, PYTHONPATH=str(folder),
                     PYTEST_ADDOPTS="--junitxml=report.xml")  # fmt: skip

    def _no_test_is_missed(self) -> None:
        """The file without extras skips the tests that need one, and no others."""
        ran: list[set[str]] = []
        for name in FILES:
            report = ElementTree.parse(self.files[name].with_name("report.xml"))
            cases = (case for case in report.iter("testcase") if case.find("skipped") is None)
            ran.append({case.get("classname", "").split(".")[1] for case in cases})
        skipped = ran[1] - ran[0]
        if skipped - OF_EXTRAS:
            raise Failed(f"not tested without extras: {', '.join(sorted(skipped - OF_EXTRAS))}")
        self.note("skipped without extras", ", ".join(sorted(skipped)))

    def _on_tools(self) -> str:
        return suite(self.tools, self.checkout, "-m", "coverage", "run")


def main() -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as room:
        try:
            gate = Gate(Path(room))
            gate.style()
            gate.types()
            gate.built()
            gate.types_of_files()
            closing = gate.suites()
        except Failed as error:
            print(error, flush=True)
            return 1
    print(f"{'all of this':48}  {time.monotonic() - started:.0f} s")
    print(closing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
