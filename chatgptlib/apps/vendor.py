"""The library as one module, to copy into a project.

    python -m chatgptlib vendor --with tools -o chat.py

The file contains the core, the selected extras and the extras that these import. Each module
follows those that it imports, and is unchanged except for its imports: imports within the
library are removed, all others are collected at the top. Where the core would import an extra
that the file lacks, it raises a ConfigError that says how to add it.

The same sources and extras give the same bytes. The header has the version, the extras and a
hash of the other lines, in a format that all versions can read.
"""

from __future__ import annotations

import argparse
import ast
import functools
import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib import resources
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeGuard

from ..client import __version__
from .printing import print_message

_LICENCE = """\
MIT License

Copyright (c) 2026 the chatgptlib authors

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""  # a copy of LICENSE, which is not installed with the modules
_HOME = (__package__ or "chatgptlib.apps").rpartition(".")[0]
_COMMAND = "python -m chatgptlib vendor"
_DIGEST_LINE = "# sha256 of the other lines: "
_HEADER = f"""\
# chatgptlib {{version}}: Chat Completions in one module, under any name, for Python 3.10 and newer.
# Made by `{_COMMAND}{{option}} -o FILE`. Do not edit: change the package, and make it again.
{_DIGEST_LINE}
# {{licence}}; its text is at the end.
#
# It requires `requests` 2.28.1 with urllib3 1.26.12, or newer. Each section was a module of the
# package, which is what its comments on imports and annotations refer to.
#
# Contents, with line numbers:
{{contents}}
#
# It follows the coding style of the package, so linters and formatters should skip it.
# fmt: off
# isort: skip_file
# ruff: noqa
# flake8: noqa
# pyright: reportMissingModuleSource=false, reportPrivateUsage=false
"""
_HEADER_PATTERN = re.compile(  # these lines have the same format in all versions
    rf"^# chatgptlib (?P<version>\S+): .*\n"
    rf"# Made by `{_COMMAND}(?: --with (?P<extras>\S+))? -o FILE`.*\n"
    rf"(?P<digest_line>{_DIGEST_LINE}(?P<digest>.*)\n)",
    re.MULTILINE,
)

_OTHER, _EDITED, _FOREIGN = 3, 4, 5  # exit statuses of --check
_STATUS = f"""\
exit status of --check:
  0  FILE is up to date: this version would write the same
  1  FILE, or the package, can't be read
  {_OTHER}  FILE was written by another version
  {_EDITED}  FILE was edited
  {_FOREIGN}  FILE was not written by this command
"""


class CannotVendor(Exception):
    """An extra is unknown, the sources can't be read, or the file can't be written."""


def vendored(extras: Iterable[str] = ()) -> str:
    """The text of the single file: the core, these extras and the extras that they need.

    `["all"]` selects every extra. Raises CannotVendor for an unknown extra, or if the sources
    can't be read.
    """
    return _File(_package(), extras).text()


def _package() -> dict[str, str]:
    """The sources by module name: `__init__`, the core's, and the extras' as `extras.NAME`."""
    found: dict[str, str] = {}
    try:
        home = resources.files(_HOME)
        for prefix, folder in ("", home), ("extras.", home.joinpath("extras")):
            for name in sorted(file.name for file in folder.iterdir()):
                module = prefix + name.removesuffix(".py")
                if name.endswith(".py") and module not in ("__main__", "extras.__init__"):
                    found[module] = folder.joinpath(name).read_text("utf-8")
    except (OSError, TypeError, NotImplementedError) as error:  # depending on the loader
        raise CannotVendor(f"cannot read the sources of {_HOME}: {error}") from error
    if "__init__" not in found:
        raise CannotVendor(f"cannot find the sources of {_HOME} in {home}")
    return found


@functools.cache
def _tree(source: str) -> ast.Module:
    return ast.parse(source)


def _docstring(source: str) -> str:
    return ast.get_docstring(_tree(source)) or ""


def _title(source: str) -> str:
    return _docstring(source).partition("\n")[0]


def _extras(modules: Iterable[str]) -> list[str]:
    """The names of the extras among these modules."""
    return [name.removeprefix("extras.") for name in modules if name.startswith("extras.")]


class _File:
    """The single file with some extras and the extras that they need."""

    def __init__(self, package: Mapping[str, str], extras: Iterable[str]) -> None:
        self.package = package
        self.modules: dict[str, str] = {}  # in the order of the file
        every = _extras(package)
        wanted = [name for name in package if "." not in name and name != "__init__"]
        for extra in extras:
            if extra not in (*every, "all"):
                raise CannotVendor(f"no extra {extra!r}: choose from {', '.join(every)} and all")
            wanted += [f"extras.{name}" for name in every if extra in (name, "all")]
        for name in wanted:  # the list grows as extras need others
            wanted += _needs(name, package[name]) - {*wanted}
        for name in package:
            if name in wanted:
                self._add(name)

    def _add(self, name: str) -> None:
        """Add a module after those that it imports at its top level."""
        if name not in self.modules:
            for needed in _imported(name, _tree(self.package[name]).body):
                self._add(needed)
            self.modules[name] = self.package[name]

    def option(self) -> str:
        """The option of the command that makes this file."""
        needed = {need for name in self.modules for need in _needs(name, self.modules[name])}
        extras = ",".join(sorted(_extras(self.modules.keys() - needed)))
        if _extras(self.package) == sorted(_extras(self.modules)):
            extras = "all"
        return extras and f" --with {extras}"

    def text(self) -> str:
        kind, _, copyright_line, *_ = _LICENCE.splitlines()
        contents = {name: _title(source) for name, source in self.modules.items()}
        contents["licence"] = kind
        wide = max(map(len, contents))
        header = _HEADER.format(
            version=__version__,
            option=self.option(),
            licence=f"{kind}, {copyright_line}",
            contents="\n".join(f"#{0:6}  {name:{wide}}  {it}" for name, it in contents.items()),
        )
        root = self.package["__init__"]
        parts = [
            header + (ast.get_source_segment(root, _tree(root).body[0]) or ""),
            "from __future__ import annotations",
            "\n".join([_imports([*map(_tree, self.modules.values())]), *self._absent()]),
            self._all(_tree(root)),
            *("\n" + self._section(name, source) for name, source in self.modules.items()),
            "\n" + _comment("licence", _LICENCE),
        ]
        text = "\n\n".join(parts) + "\n"
        for number, line in enumerate(text.splitlines(), 1):
            if banner := re.match(r"# ---- (\S+) -", line):
                text = text.replace(f"#{0:6}  {banner[1]} ", f"#{number:6}  {banner[1]} ", 1)
        digest = sha256(text.replace(f"{_DIGEST_LINE}\n", "", 1).encode()).hexdigest()
        return text.replace(_DIGEST_LINE, _DIGEST_LINE + digest, 1)

    def _all(self, root: ast.Module) -> str:
        """The package's `__all__` without the names of modules that the file lacks."""
        left_out = {
            alias.name
            for node in ast.walk(root)
            if isinstance(node, ast.ImportFrom) and node.level and node.module not in self.modules
            for alias in node.names
        }
        for node in root.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = [name for name in ast.literal_eval(node.value) if name not in left_out]
                return "\n".join(["__all__ = [", *(f'    "{name}",' for name in names), "]"])
        raise CannotVendor("__init__.py has no __all__")

    def _missing(self, name: str, node: ast.stmt) -> list[str]:
        """The extras that a statement of a module imports and the file lacks."""
        return _extras(one for one in _imported(name, [node]) if one not in self.modules)

    def _absent(self) -> Iterator[str]:
        """Definitions as `Any`, for type checkers, of the types of missing extras."""
        for name, source in self.modules.items():
            for parent, block in _blocks(_tree(source)):
                for node in block if _is_for_checkers(parent) else ():
                    if isinstance(node, ast.ImportFrom) and self._missing(name, node):
                        yield from (f"    {alias.name} = Any" for alias in node.names)

    def _section(self, name: str, source: str) -> str:
        """A module without its imports; its docstring becomes a comment under a banner."""
        lines: list[str | None] = [*source.splitlines()]
        tree = _tree(source)
        _blank(lines, tree.body[0])
        for parent, block in _blocks(tree):
            self._cut(name, lines, block, parent is tree or _is_for_checkers(parent))
        code = "\n".join(line for line in lines if line is not None).strip("\n")
        return f"{_comment(name, _docstring(source))}\n\n\n{code}"

    def _cut(self, name: str, lines: list[str | None], block: list[Any], hoisted: bool) -> None:
        """Remove the imports from a block of statements: the library's, or all if `hoisted`. If
        the block imports a missing extra, it raises ConfigError from there on."""
        for node in block:
            of_ours = [*_imported(name, [node])]
            missing = [] if hoisted else self._missing(name, node)
            if missing:  # the rest of the block uses the import, so an error replaces it
                first, end = node.lineno - 1, block[-1].end_lineno
                wider = _File(self.package, [*_extras(self.modules), *missing])
                command = f"{_COMMAND}{wider.option()} -o FILE"
                words = f"{{__name__}} was made without {missing[0]}: `{command}` adds it"
                lines[first] = f'{" " * node.col_offset}raise ConfigError(f"{words}")'
                lines[first + 1 : end] = [None] * (end - first - 1)
                return
            for_checkers = _is_for_checkers(node) and all(
                _is_import(one) for one in (*node.body, *node.orelse)
            )
            if of_ours or for_checkers or (hoisted and _is_import(node)):
                _blank(lines, node)


@functools.cache
def _needs(module: str, source: str) -> frozenset[str]:
    """The modules that an extra imports anywhere; empty for the core, which needs no extra."""
    if not module.startswith("extras."):
        return frozenset()
    blocks = (block for _, block in _blocks(_tree(source)))
    return frozenset(_imported(module, itertools.chain.from_iterable(blocks)))


def _blocks(parent: ast.AST) -> Iterator[tuple[ast.AST, list[Any]]]:
    """Each block of statements at any depth, outer ones first, with the node that holds it."""
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        if block := getattr(parent, field, None):
            yield parent, block
            for node in block:
                yield from _blocks(node)


def _imported(module: str, nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The modules of the package that these statements import."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = module.rpartition(".")[0] if node.level == 1 else ""
            yield f"{folder}.{node.module}".lstrip(".")


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _is_for_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _blank(lines: list[str | None], node: ast.stmt) -> None:
    """Remove a statement and the blank lines after it."""
    first, end = node.lineno - 1, node.end_lineno or node.lineno
    while end < len(lines) and not lines[end]:
        end += 1
    lines[first:end] = [None] * (end - first)


def _comment(title: str, text: str) -> str:
    """A text as a comment, under a banner."""
    banner = f"# ---- {title} ".ljust(100, "-")
    return "\n".join([banner, "#", *(f"# {line}".rstrip() for line in text.splitlines())])


def _imports(trees: Sequence[ast.Module]) -> str:
    """All imports from outside the library; those for type checkers come last."""
    always = _outside(tree.body for tree in trees)
    blocks = (node.body for tree in trees for node in tree.body if _is_for_checkers(node))
    checked = ("    " + line for line in _import_lines(_outside(blocks) - always))
    return "\n".join([*_import_lines(always), "", "if TYPE_CHECKING:", *checked])


def _outside(blocks: Iterable[Sequence[ast.stmt]]) -> set[tuple[str, str]]:
    """The imports from outside the library: the start of each statement, and the name."""
    found: set[tuple[str, str]] = set()
    for node in itertools.chain.from_iterable(blocks):
        if isinstance(node, ast.Import):
            found.update((f"import {ast.unparse(alias)}", "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
            found.update(
                (f"from {node.module} import ", ast.unparse(alias)) for alias in node.names
            )
    return found


def _import_lines(found: set[tuple[str, str]]) -> Iterator[str]:
    for start in sorted({start for start, _ in found}, key=lambda it: (it[:4] == "from", it)):
        yield start + ", ".join(sorted(name for one, name in found if one == start))


def _listed() -> str:
    """A table of the core and the extras: their sizes, titles and the extras they need."""
    package = _package()
    wide = max(map(len, _extras(package)))
    rows = [f"{'--with':{wide}}   lines     bytes"]
    for choice in ("", *_extras(package), "all"):
        modules = _File(package, filter(None, [choice])).modules
        extra = f"extras.{choice}"
        text = package[extra] if extra in package else "".join(modules.values())
        about = _title(text) if extra in package else ""
        needs = ", ".join(name for name in _extras(modules) if name != choice)
        about += f" Needs {needs}." if about and needs else ""
        name = choice or "(the core)"
        size = f"{len(text.splitlines()):7,} {len(text.encode()):9,}"
        rows.append(f"{name:{wide}} {size}  {about}".rstrip())
    return "\n".join(rows)


def _check(path: Path) -> tuple[int, str]:
    """The exit status for a file, and a line that explains it. CRLF line ends are accepted."""
    text = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
    made = _HEADER_PATTERN.search(text)
    if not made:
        return _FOREIGN, f"{path} was not written by `{_COMMAND}`"
    version, extras = made["version"], [*filter(None, (made["extras"] or "").split(","))]
    known = "" if version == __version__ else f" (this is {__version__})"
    if sha256(text.replace(made["digest_line"], "", 1).encode()).hexdigest() != made["digest"]:
        return _EDITED, f"{path} was edited after chatgptlib {version} wrote it{known}"
    package = _package()
    if {*extras} <= {*_extras(package), "all"} and text == _File(package, extras).text():
        return 0, f"{path} is up to date: chatgptlib {version} would write the same"
    return _OTHER, f"{path} was written by another chatgptlib, {version}{known}"


def _write(target: Path, data: bytes, force: bool) -> None:
    """Replace a file atomically. If `target` is a link, the file that it leads to is replaced."""
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_file():
        raise CannotVendor(f"{target} is not a regular file: name another, or leave out -o")
    if not force and target.exists() and target.stat().st_size:
        status, verdict = _check(target)
        if status in (_EDITED, _FOREIGN):
            raise CannotVendor(f"{verdict}; use --force to replace it")
    beside = target.with_name(f".{target.name}.{token_hex(8)}")
    with open(beside, "xb") as file:  # "x" follows no link
        try:
            file.write(data)
            file.close()  # Windows does not move an open file
            if target.exists():
                shutil.copymode(target, beside)
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_COMMAND,
        description="Write the library as one module: the core and selected extras.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_mutually_exclusive_group().add_argument
    add("-o", metavar="FILE", type=Path, help="the file to write; default: standard output")
    add("--list", action="store_true", help="list the extras with their sizes")
    add("--check", metavar="FILE", type=Path, help="check whether FILE is up to date")
    parser.add_argument(
        "--with", metavar="EXTRA,...", dest="extras", action="extend", default=[],
        type=lambda text: text.split(","), help="add these extras and those they need, or all",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true",
        help="replace FILE even if it was edited or not written by this command",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.extras and (given.list or given.check):
        parser.error("--with can't be used with --list or --check")
    try:
        if given.check:
            status, verdict = _check(given.check)
            print(verdict)
            return status
        if given.list:
            print(_listed())
        elif given.o:
            _write(given.o, vendored(given.extras).encode(), given.force)
        else:
            text = vendored(given.extras).encode()
            sys.stdout.buffer.write(text)  # with the same line ends everywhere
            sys.stdout.flush()
    except CannotVendor as error:
        print_message(str(error))
        return 1
    except OSError as error:
        if error.filename is None:  # stdout has failed
            raise
        print_message(f"cannot read or write {error.filename}: {error.strerror}")
        return 1
    return 0
