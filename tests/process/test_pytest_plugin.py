# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin without a guest: which machines a test runs on, what is said of a bad word, what a splat does."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import arch, dmesg, paths
from lab import testlab as testlabs
from lab.errors import GuestLost
from lab.ssh import Done
from lab.testguest import Wish

pytest_plugins = ["pytester"]

INSTALLED = any(one.value == "lab.pytest_plugin" for one in entry_points(group="pytest11"))
PLUGIN = ["-p", "no:cacheprovider", *(() if INSTALLED else ("-p", "lab.pytest_plugin"))]
WARNING = b"[    5.100000] WARNING: CPU: 0 PID: 1 at mine.c:13 mine_write+0x1/0x2 [mine]\r\n"


@pytest.fixture
def collected(pytester: pytest.Pytester) -> Any:
    """Names of the tests of a file, or what pytest says of it."""

    def collect(source: str, *words: str) -> str:
        pytester.makepyfile(source)
        result = pytester.runpytest_inprocess(*PLUGIN, "--collect-only", "-q", *words)
        return str(result.stdout)

    return collect


def test_it_is_an_entry_point() -> None:
    project = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"lab": "lab.pytest_plugin"}


def test_it_imports_nothing_heavy() -> None:
    heavy = "libvirt paramiko jinja2 cryptography pydantic rich typer platformdirs".split()
    code = f"import sys, lab.pytest_plugin; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_a_test_runs_once_for_each_machine(collected: Any) -> None:
    said = collected(
        """
        import pytest
        def test_open(guest): pass
        @pytest.mark.lab(arch=["x86_64", "aarch64"], kernel="bookworm")
        def test_both(guest): pass
        @pytest.mark.lab(arch=["x86_64", "aarch64"], kernel=["trixie", "trixie-16k"], hardware="smp4", vcpus=3)
        def test_some(guest): pass
        @pytest.mark.lab(kernel="sid")
        class TestClass:
            @pytest.mark.lab(vcpus=1)
            def test_nearest(self, guest): pass
        def test_without(): pass
        """
    )
    native = arch.native()
    here = native.name if native else "x86_64"
    for name in (f"test_open[{here}-trixie]", "test_both[x86_64-bookworm]", "test_both[aarch64-bookworm]"):
        assert name in said
    assert said.count("test_some[") == 3 and "test_some[aarch64-trixie-16k-smp4-3cpu]" in said
    assert f"test_nearest[{here}-sid-1cpu]" in said and "test_without\n" in said


BAD = {
    "arch='riscv64'": "unknown architecture 'riscv64'",
    "kernel='buster'": "unknown kernel 'buster'",
    "hardware='pdp11'": "unknown hardware 'pdp11'",
    "cpus=2": "the marker lab knows no 'cpus'",
    "'x86_64'": "the marker lab knows no 'x86_64'",
    "vcpus=65": "vcpus=65 is no number from 1 to 64",
    "shared='class'": "cannot be shared by 'class'",
}


def test_a_bad_word_is_one_line(pytester: pytest.Pytester) -> None:
    source = "import pytest\n@pytest.mark.lab({})\ndef test_one(guest): pass\n"
    pytester.makepyfile(**{f"test_{at}": source.format(words) for at, words in enumerate(BAD)})
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(errors=len(BAD))
    said = result.stdout.lines
    for at, told in enumerate(BAD.values()):
        assert [line for line in said if told in line and line.startswith(f"test_{at}.py::test_one: ")], told
    assert "Traceback" not in str(result.stdout)


class FakeLab:
    """Hands out guests whose every command succeeds, and whose console says what a command echoes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, 0

    @contextmanager
    def start(self, wish: Wish) -> Iterator[testlabs.Running]:
        self.started += 1
        log = self.folder / f"{self.started}.log"
        log.write_text("booted\n")
        scanner = dmesg.Scanner()
        guest = SimpleNamespace(lost="", console=SimpleNamespace(settle=lambda *_: None))
        said = bytearray()

        def run(command: str, **_: Any) -> Done:
            if guest.lost:
                raise GuestLost(guest.lost)
            if command == "splat":
                scanner.feed(WARNING)
                with log.open("ab") as stream:
                    stream.write(WARNING)
                guest.lost = "" if running.forgiving else "a splat"
            elif command == "quiet splat":
                said.extend(WARNING)
            elif command.startswith("echo '"):
                said.extend(command[6:].partition("'")[0].encode() + b"\n")
            return Done(3 if command == "fail" else 0, bytes(said) if command == "dmesg" else b"\x1b[1mfine\n", b"")

        guest.run = run
        profile = SimpleNamespace(vcpus=2)
        image = SimpleNamespace(arch=SimpleNamespace(name=wish.arch), recipe=wish.kernel, release="6.x")
        machine: Any = SimpleNamespace(image=image, hardware=profile)
        running = testlabs.Running(guest, machine, scanner, log, 1.0)  # type: ignore[arg-type]
        yield running


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    made = FakeLab(tmp_path)

    @contextmanager
    def opened(_folder: Path, *, progress: Any) -> Iterator[FakeLab]:
        yield made

    monkeypatch.setattr(testlabs, "opened", opened)
    return made


def test_a_splat_fails_the_test_it_came_in(pytester: pytest.Pytester, fake: FakeLab) -> None:
    pytester.makepyfile(
        """
        import pytest
        def test_good(guest):
            assert guest.run("x").stdout == "fine\\n"
            assert guest.run("fail", check=False).status == 3
        def test_seen(guest): guest.run("splat")
        def test_in_the_log_only(guest): guest.run("quiet splat")
        def test_and_wrong(guest):
            guest.run("quiet splat")
            assert 1 == 2
        @pytest.mark.lab(splats=True)
        def test_meant(guest):
            guest.run("splat")
            assert "mine_write" in guest.splats[0].decisive
        def test_failing(guest): guest.run("fail")
        """
    )
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(passed=2, failed=4)
    said = str(result.stdout)
    assert said.count("WARNING: CPU: 0 PID: 1 at mine.c:13 mine_write+0x1/0x2 [mine]") >= 3
    assert "the test itself ended with AssertionError" in said
    assert "'fail' ended with status 3 in the guest: fine" in said
    assert "- console of " in said and "booted" not in said  # what it said before the test
    assert fake.started == 6


def test_a_guest_is_shared_until_it_is_lost(pytester: pytest.Pytester, fake: FakeLab) -> None:
    pytester.makepyfile(
        """
        import pytest
        pytestmark = pytest.mark.lab(shared="module", arch="x86_64")
        def test_one(guest): guest.run("x")
        def test_two(guest): guest.run("splat")
        def test_three(guest): guest.run("x")
        def test_four(guest): guest.run("x")
        @pytest.mark.lab(arch="aarch64")
        def test_five(guest): guest.run("x")
        """
    )
    pytester.runpytest_inprocess(*PLUGIN).assert_outcomes(passed=4, failed=1)
    assert fake.started == 3


def test_the_command_line_narrows(pytester: pytest.Pytester, fake: FakeLab) -> None:
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.lab(arch="x86_64")
        def test_one(guest): pass
        @pytest.mark.lab(arch=["x86_64", "aarch64"])
        def test_both(guest): pass
        def test_open(guest): pass
        """
    )
    result = pytester.runpytest_inprocess(*PLUGIN, "-v", "--lab-arch", "aarch64", "--lab-kernel", "sid")
    result.assert_outcomes(passed=2, skipped=1)
    said = str(result.stdout)
    assert "test_both[aarch64-sid] PASSED" in said and "test_open[aarch64-sid] PASSED" in said and "x86_64" not in said
