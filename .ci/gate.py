"""The gate: what has to hold of a commit before it lands.

    .ci/run                 all of it
    .ci/run style types     only these

    style    ruff: lint and format
    types    mypy and pyright of the package, both strict
    suite    the tests: all of them once, for the coverage, and those of the default selection
             on every Python from 3.10 up that is found, and on old dependencies
    vendor   the package as one file: the same bytes from wheel, sdist and checkout; its size,
             its types and its tests, without extras and with all
    wheel    the wheel alone: the quick start, and the types that a user's checker sees

The gate looks at what is committed, in a temporary folder, with environments of its own. The
last line of its output is pytest's summary line of the run with coverage. It stops at the first
check that fails.
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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property, partial
from pathlib import Path
from xml.etree import ElementTree

VERSIONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
OLD_PAIRS = [["requests==2.31.0", "urllib3==2.0.7"]]  # Ubuntu 24.04; the floors are in setup.cfg
ALL_TESTS = ("-m", "gate or not gate", "--hypothesis-profile=thorough")
# The default selection, and the slow tests that depend on versions.
QUICK_TESTS = ("-m", "not gate or versions")
AT_ONCE = os.cpu_count() or 1  # suites

WHEEL_LIMIT = 192_000  # bytes: what it has today, rounded up; the aim is 100,000
CORE_LIMITS = 4_825, 209_500  # lines and bytes of the file without extras; the aim: 3,300, 130,000
FILES = {"without extras": [], "with all extras": ["--with", "all"]}
BARE = ("requests", "pytest", "responses", "hypothesis")  # what the tests of the file need
SERVER = [f"chatgptlib/extras/{name}.py" for name in ("offline_replies", "offline")]
QUICK_START = "Write a tagline for an ice cream shop."
STRICT = ("--strict", "--config-file=", "--no-error-summary")  # for mypy

HOME = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(
        ("OPENAI_", "CHATGPTLIB_", "PYTEST_", "PYTHONPATH", "VIRTUAL_ENV", "COVERAGE_")
    )
} | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"}


class Failed(Exception):
    """A check failed; the message is what its command printed."""


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command and return its output. Raises Failed for an exit status other than 0."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=ENVIRONMENT | environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"$ {' '.join(words)}\n{done.stdout}\n(exit status {done.returncode})")
    return done.stdout


def report(what: str, outcome: str) -> None:
    print(f"{what:48}  {outcome}", flush=True)


def environment_at(folder: Path, python: object, *packages: object) -> Path:
    """Make a virtual environment with these packages; return its Python."""
    run(python, "-m", "venv", folder, cwd=HOME)
    inside = folder / "bin" / "python"
    run(inside, "-m", "pip", "install", "--quiet", *packages, cwd=HOME)
    return inside


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def pythons() -> dict[str, str]:
    """The interpreters on PATH or under pyenv, by their full version."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    code = "import ensurepip, sys, venv; print('.'.join(map(str, sys.version_info[:3])))"
    found: dict[str, str] = {}
    for version in VERSIONS:
        on_path = shutil.which(f"python{version}")
        installed = sorted(pyenv.glob(f"{version}.*/bin/python"), key=_patch, reverse=True)
        for python in [*([on_path] if on_path else []), *installed]:
            try:  # pyenv has a shim on PATH also for a version that it can't start here
                full = run(python, "-c", code, cwd=HOME).strip()
            except (Failed, OSError):
                continue
            found[full] = str(python)
            break
    if not found:
        raise Failed(f"found no Python of {', '.join(VERSIONS)}")
    return found


def _patch(python: Path) -> int:
    """The patch number in the name of a pyenv folder."""
    return int("".join(filter(str.isdigit, python.parts[-3].split(".")[-1])) or 0)


def old_dependencies() -> list[list[str]]:
    """The oldest dependencies that setup.cfg allows, and the other old pairs."""
    config = configparser.ConfigParser()
    config.read(HOME / "setup.cfg")
    floors = config["options"]["install_requires"].replace(">=", "==").replace(" ", "").split()
    return [floors, *OLD_PAIRS]


def run_tests(
    python: Path, cwd: Path, tests: Sequence[str], *, before: Sequence[str] = (), **environment: str
) -> str:
    """Run tests with every warning an error; return pytest's summary line."""
    output = run(
        python, *before, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests,
        cwd=cwd, PYTHONWARNINGS="error", **environment,
    )  # fmt: skip
    return output.strip().splitlines()[-1]


def run_at_once(jobs: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    """Run suites, some at a time; report each when it ends, and return their summary lines."""
    summaries: dict[str, str] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = {pool.submit(job): what for what, job in jobs.items()}
        for future in as_completed(started):
            what = started[future]
            try:
                summaries[what] = future.result()
                report(what, summaries[what])
            except Failed as error:
                report(what, f"failed\n{error}")
    if failed := jobs.keys() - summaries.keys():
        raise Failed(f"failed: {'; '.join(sorted(failed))}")
    return summaries


class Gate:
    """The checks, and what several of them need, made at its first use."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.summary = ""
        self.checkout = room / "checkout"
        try:
            run("git", "clone", "--quiet", HOME, self.checkout, cwd=room)
        except (Failed, OSError):  # HOME is no repository, as in an unpacked sdist
            shutil.copytree(HOME, self.checkout)
        else:
            if run("git", "status", "--porcelain", cwd=HOME):
                report("changes that are not committed", "not checked")

    # The checks

    def style(self) -> None:
        python = environment_at(self.room / "style", sys.executable, "ruff")
        run(python, "-m", "ruff", "check", ".", cwd=self.checkout)
        run(python, "-m", "ruff", "format", "--check", ".", cwd=self.checkout)
        report("ruff check, ruff format", "clean")

    def types(self) -> None:
        self.tool("mypy")
        self.tool("pyright", "--pythonpath", self.tools)
        report("mypy, pyright strict: the package", "clean")

    def suite(self) -> None:
        found = pythons()
        missing = [one for one in VERSIONS if not any(full.startswith(one) for full in found)]
        report("Pythons found", ", ".join(found))
        report("Pythons not found", ", ".join(missing) or "none")
        coverage = f"all tests, Python {platform.python_version()}"
        jobs: dict[str, Callable[[], str]] = {coverage: self._with_coverage}
        for full, python in found.items():
            if full != platform.python_version():
                jobs[f"Python {full}"] = partial(self._with, python, full)
        first, python = next(iter(found.items()))
        for pair in old_dependencies():
            what = ", ".join([f"Python {first}", *pair])
            jobs[what] = partial(self._with, python, "_".join(pair), *pair)
        _ = self.tests_alone  # made before the threads that share it
        self.summary = run_at_once(jobs)[coverage]
        self.tool("coverage", "combine", "--quiet")
        self.tool("coverage", "report")  # fails below the limit in setup.cfg
        total = self.tool("coverage", "report", "--format=total").strip()
        report("branch coverage", f"{total} %")

    def _with_coverage(self) -> str:
        return run_tests(self.tools, self.checkout, ALL_TESTS, before=("-m", "coverage", "run"))

    def _with(self, python: str, name: str, *packages: str) -> str:
        inside = environment_at(self.room / name, python, f"{self.wheel}[test]", *packages)
        return run_tests(inside, self.tests_alone, QUICK_TESTS)

    def vendor(self) -> None:
        bare = environment_at(self.room / "bare", sys.executable, *BARE)
        files = {name: self._written(name, options) for name, options in FILES.items()}
        for name, file in files.items():
            self._check_types(file, bare)
            report(f"mypy, pyright strict: the file {name}", "clean")
        jobs = {
            f"the file {name}": partial(self._with_file, file, bare) for name, file in files.items()
        }
        run_at_once(jobs)
        self._check_skips(*files.values())

    def _written(self, name: str, options: list[str]) -> Path:
        """The file that the wheel writes, checked, and beside it what its tests need."""
        alone = self.room / name.replace(" ", "_")
        for needed in ("tests", "README.md", "setup.cfg", *SERVER):
            copy(self.unpacked / needed, alone / needed)
        file = alone / "vendored_chat.py"
        run(
            self.installed, "-m", "chatgptlib", "vendor", *options, "-o", file, cwd=self.tests_alone
        )
        for sources in (self.unpacked, self.checkout):
            self.tool("chatgptlib", "vendor", "--check", file, cwd=sources)
        data = file.read_bytes()
        size = data.count(b"\n"), len(data)
        if not options and any(map(int.__gt__, size, CORE_LIMITS)):
            raise Failed(f"the file {name} has {size} lines and bytes; the limit is {CORE_LIMITS}")
        report(
            f"the file {name}: wheel, sdist and checkout", "{:,} lines, {:,} bytes".format(*size)
        )
        return file

    def _check_types(self, file: Path, bare: Path) -> None:
        """Check as a project does that has the file, and `requests` without stubs."""
        self.tool("mypy", *STRICT, "--python-executable", bare, file, cwd=self.room)
        config = file.with_name("pyrightconfig.json")
        config.write_text(f'{{"include": ["{file.name}"], "typeCheckingMode": "strict"}}')
        self.tool("pyright", "--pythonpath", bare, cwd=file.parent)
        config.unlink()

    def _with_file(self, file: Path, bare: Path) -> str:
        return run_tests(
            bare, file.parent, QUICK_TESTS, CHATGPTLIB_UNDER_TEST=file.stem,
            PYTHONPATH=str(file.parent), PYTEST_ADDOPTS="--junitxml=report.xml",
        )  # fmt: skip

    def _check_skips(self, core: Path, all_extras: Path) -> None:
        """Check that the file without extras skips no test of a core module."""
        ran: list[set[str]] = []
        for file in (core, all_extras):
            tree = ElementTree.parse(file.with_name("report.xml"))
            cases = (case for case in tree.iter("testcase") if case.find("skipped") is None)
            ran.append({case.get("classname", "").split(".")[1] for case in cases})
        skipped = ran[1] - ran[0]
        core_modules = (self.checkout / "chatgptlib").glob("*.py")
        if missed := skipped & {f"test_{path.stem}" for path in core_modules}:
            raise Failed(f"not tested without extras: {', '.join(sorted(missed))}")
        report("skipped without extras", ", ".join(sorted(skipped)))

    def wheel_alone(self) -> None:
        answer = run(
            self.installed, "-m", "chatgptlib", "--offline", QUICK_START, cwd=self.tests_alone
        )
        if QUICK_START not in answer:
            raise Failed(f"the quick start of the wheel answered: {answer}")
        copy(self.tests_alone / "tests" / "typed" / "right.py", self.room / "use.py")
        python = ("--python-executable", self.installed)
        self.tool("mypy", *STRICT, *python, "use.py", cwd=self.room)
        report("the wheel alone: quick start, its types", "ok")

    # What they need

    def tool(self, *command: object, cwd: Path | None = None) -> str:
        return run(self.tools, "-m", *command, cwd=cwd or self.checkout)

    @cached_property
    def tools(self) -> Path:
        """The Python that has the development tools."""
        return environment_at(self.room / "tools", sys.executable, f"{self.checkout}[dev]")

    @cached_property
    def dist(self) -> Path:
        """The folder of the sdist and the wheel, both checked."""
        dist = self.room / "dist"
        self.tool("build", "--outdir", dist, ".")
        self.tool("twine", "check", "--strict", *dist.iterdir())
        (wheel,) = dist.glob("*.whl")
        size = wheel.stat().st_size
        if size >= WHEEL_LIMIT:
            raise Failed(f"the wheel has {size:,} bytes; the limit is {WHEEL_LIMIT:,}")
        report("sdist and wheel: built, twine check", f"{size:,} bytes of wheel")
        return dist

    @cached_property
    def wheel(self) -> Path:
        (wheel,) = self.dist.glob("*.whl")
        return wheel

    @cached_property
    def installed(self) -> Path:
        """The Python that has the wheel and what it requires."""
        return environment_at(self.room / "installed", sys.executable, self.wheel)

    @cached_property
    def unpacked(self) -> Path:
        """The folder of the unpacked sdist."""
        (sdist,) = self.dist.glob("*.tar.gz")
        shutil.unpack_archive(sdist, self.room / "unpacked")
        (folder,) = (self.room / "unpacked").iterdir()
        return folder

    @cached_property
    def tests_alone(self) -> Path:
        """The tests of the sdist without the package, so that they import the installed one."""
        folder = self.room / "tests_alone"
        for name in ("tests", "README.md", "setup.cfg"):
            copy(self.unpacked / name, folder / name)
        return folder


CHECKS = {
    "style": Gate.style,
    "types": Gate.types,
    "suite": Gate.suite,
    "vendor": Gate.vendor,
    "wheel": Gate.wheel_alone,
}


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in CHECKS]:
        print(f"no check {', '.join(unknown)}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as room:
        try:
            gate = Gate(Path(room))
            for name, check in CHECKS.items():
                if name in names or not names:
                    check(gate)
        except Failed as error:
            print(error, flush=True)
            return 1
    report(" ".join(names) or "all of this", f"{time.monotonic() - started:.0f} s")
    if gate.summary:
        print(gate.summary)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
