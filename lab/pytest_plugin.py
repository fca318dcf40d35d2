# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin: `def test_mine(guest): guest.run("uname -r")`, in any repository.

Which machine is said by `@pytest.mark.lab(...)` on a test, class or module (the nearest word counts):

    arch, kernel, hardware   a name or several: the test runs once for each combination that exists
    vcpus                    another number of processors than the hardware's
    shared                   "module" or "session": one guest for all tests there that ask so; else each has a fresh one
    splats                   True: the kernel may complain, the test looks at `guest.splats` itself

What the marker leaves open is --lab-arch's and --lab-kernel's to say, else it is this host's architecture and `trixie`;
what it names, they narrow. A complaint of the kernel fails the test that it came in, with the line that says most, and
a failing test's report ends with the guest's console. Nothing heavy is imported before a test asks for a guest.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.testguest import Guest, Wish
    from lab.testlab import Shared, TestLab

KERNEL = "trixie"
KEYS = ("arch", "kernel", "hardware", "vcpus", "shared", "splats")
CONSOLE_LINES = 200  # of a failing test's report
VCPUS_MAX = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """What a test's markers say, the nearest first."""

    arch: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    hardware: tuple[str, ...] = ()
    vcpus: int = 0
    shared: str = ""
    splats: bool = False


@dataclass(slots=True)
class Shown:
    """The console of a test's guest: where in the file the test began."""

    name: str
    log: Path
    begins: int
    guest: Guest


_SHOWN = pytest.StashKey[list[Shown]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--lab-arch and --lab-kernel."""
    group = parser.getgroup("lab", "guests of the lab")
    group.addoption(
        "--lab-arch", action="append", default=[], metavar="A", help="Only guests of this architecture; repeatable."
    )
    group.addoption(
        "--lab-kernel", action="append", default=[], metavar="K", help="Only this kernel, or a build tree; repeatable."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "lab(arch, kernel, hardware, vcpus, shared, splats): the machine of fixture `guest`; see lab/pytest_plugin.py",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test runs once for each machine that it asks for."""
    if "lab_wish" not in metafunc.fixturenames:
        return
    try:
        asked = _asked(list(metafunc.definition.iter_markers("lab")))
        wishes = _wishes(asked, metafunc.config)
    except LabError as e:
        raise pytest.fail.Exception(f"{metafunc.definition.nodeid}: {_told(e)}", pytrace=False) from None
    told = [pytest.param(wish, id=wish.name) for wish in wishes]
    if not told:
        reason = "--lab-arch and --lab-kernel leave no machine of those it is for"
        told = [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    # With its scope pytest brings the tests of one shared guest together.
    metafunc.parametrize("lab_wish", told, indirect=True, scope=asked.shared or "function")  # type: ignore[arg-type]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """A complaint of the kernel fails the test, whatever else it found."""
    try:
        result = yield
    except (Exception, pytest.fail.Exception, pytest.skip.Exception) as e:
        _complain(item, e)
        raise
    _complain(item, None)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The consoles of a failing test's guests, in its report."""
    report = yield
    if report.failed:
        for shown in item.stash.get(_SHOWN, []):
            report.sections.append((f"console of {shown.name} ({shown.log})", _console(shown)))
    return report


@pytest.fixture
def guest(
    request: pytest.FixtureRequest, lab_wish: Wish, lab_session_guest: Shared, lab_module_guest: Shared
) -> Iterator[Guest]:
    """A guest of the lab, up and answering; see `lab.testguest.Guest` for what it can do."""
    from lab import dmesg
    from lab.testguest import Guest

    asked = _asked(list(request.node.iter_markers("lab")))
    with ExitStack() as stack:
        try:
            if asked.shared:
                running = (lab_module_guest if asked.shared == "module" else lab_session_guest).start(lab_wish)
            else:
                running = stack.enter_context(request.getfixturevalue("lab_of_process").start(lab_wish))
            begins = running.console_log.stat().st_size
            made = Guest(running, dmesg.marker(secrets.token_hex(6)), splats_allowed=asked.splats)
        except LabError as e:
            raise pytest.fail.Exception(f"no guest {lab_wish.name}: {_told(e)}", pytrace=False) from None
        request.node.stash.setdefault(_SHOWN, []).append(Shown(lab_wish.name, running.console_log, begins, made))
        yield made


@pytest.fixture
def lab_wish(request: pytest.FixtureRequest) -> Wish:
    """The machine of this test."""
    wish: Wish | None = getattr(request, "param", None)
    return wish or _wishes(_asked(list(request.node.iter_markers("lab"))), request.config)[0]


@pytest.fixture(scope="session")
def lab_of_process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    """What all guests of this process share."""
    from lab import testlab

    reporter = request.config.pluginmanager.getplugin("terminalreporter")

    def progress(text: str) -> None:
        if reporter is not None:  # there is none in a worker of xdist
            reporter.ensure_newline()
            reporter.write_line(f"lab: {text}")

    with ExitStack() as stack:
        try:
            opened = stack.enter_context(testlab.opened(tmp_path_factory.mktemp("lab"), progress=progress))
        except LabError as e:
            raise pytest.fail.Exception(_told(e), pytrace=False) from None
        yield opened


@pytest.fixture(scope="session")
def lab_session_guest(lab_of_process: TestLab) -> Iterator[Shared]:
    """The guest that tests marked shared="session" have in common."""
    yield from _shared(lab_of_process)


@pytest.fixture(scope="module")
def lab_module_guest(lab_of_process: TestLab) -> Iterator[Shared]:
    """The guest that a module's tests marked shared="module" have in common."""
    yield from _shared(lab_of_process)


def _shared(lab: TestLab) -> Iterator[Shared]:
    from lab.testlab import Shared

    shared = Shared(lab)
    yield shared
    shared.close()


def _asked(marks: Sequence[pytest.Mark]) -> Asked:
    """The words of all markers; UsageError for one that nobody knows."""
    from lab.errors import UsageError

    asked = Asked()
    for mark in reversed(marks):
        if unknown := [*mark.args, *(key for key in mark.kwargs if key not in KEYS)]:
            raise UsageError(f"the marker lab knows no {unknown[0]!r}", hint=f"known: {', '.join(KEYS)}")
        words = dict(mark.kwargs)
        for key in ("arch", "kernel", "hardware"):
            if key in words:
                words[key] = (words[key],) if isinstance(words[key], str) else tuple(words[key])
        asked = replace(asked, **words)
    if asked.shared not in ("", "module", "session"):
        raise UsageError(f"a guest cannot be shared by {asked.shared!r}", hint="known: module, session")
    if not isinstance(asked.vcpus, int) or not 0 <= asked.vcpus <= VCPUS_MAX:
        raise UsageError(f"vcpus={asked.vcpus!r} is no number from 1 to {VCPUS_MAX}")
    return asked


def _wishes(asked: Asked, config: pytest.Config) -> list[Wish]:
    """Every machine that a test asks for and the command line leaves; UsageError for an unknown name."""
    from lab import arch, hardware, kerneltree, recipe
    from lab.cell import STANDARD
    from lab.matrix import Filters, Known, check_names
    from lab.testguest import Wish

    native = arch.native()
    kernels = {name: one.arches for name, one in recipe.recipes().items()}
    trees = {}
    only_arch, only_kernel = tuple(config.getoption("--lab-arch")), list(config.getoption("--lab-kernel"))
    for at, name in enumerate(only_kernel):
        if kerneltree.is_path(name):
            tree = kerneltree.read(config.invocation_params.dir / name)
            trees[tree.name], kernels[tree.name], only_kernel[at] = tree, (tree.arch.name,), tree.name
    known = Known(kernel=kernels)
    check_names(Filters(arch=asked.arch, kernel=asked.kernel, hardware=asked.hardware), known)
    check_names(Filters(arch=only_arch, kernel=only_kernel), known)
    native_name = native.name if native else "x86_64"
    default_arch = only_arch or tuple(dict.fromkeys(tree.arch.name for tree in trees.values())) or (native_name,)
    wishes = [
        Wish(one, kernel, machine, asked.vcpus, trees.get(kernel))
        for one in asked.arch or default_arch
        for kernel in asked.kernel or only_kernel or (KERNEL,)
        for machine in asked.hardware or (STANDARD,)
        if one in kernels[kernel] and one in hardware.get(machine).arches
    ]
    return [
        wish
        for wish in wishes
        if (not only_arch or wish.arch in only_arch) and (not only_kernel or wish.kernel in only_kernel)
    ]


def _complain(item: pytest.Item, failure: BaseException | None) -> None:
    for shown in item.stash.get(_SHOWN, []):
        if told := shown.guest.complaint():
            also = f"\nthe test itself ended with {type(failure).__name__}: {failure}" if failure else ""
            raise pytest.fail.Exception(f"{shown.name}: {told}{also}", pytrace=False) from failure


def _console(shown: Shown) -> str:
    with shown.log.open("rb") as stream:
        stream.seek(shown.begins)
        lines = stream.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-CONSOLE_LINES:])


def _told(error: LabError) -> str:
    return error.told
