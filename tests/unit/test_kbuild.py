# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds without a guest: what names them, what enters and leaves the cache, what a guest may send."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import arch, kbuild, kmodtree, paths, shelf
from lab.deadline import Deadline
from lab.errors import BuildError, DeadlineError, GuestLost
from lab.image import Image
from lab.ssh import Done

QUICK = ["quick/cc", "quick/all.h", "quick/pch.h", "quick/own.h"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def image(tmp_path: Path) -> Image:
    nowhere = tmp_path / "image"
    return Image(
        recipe="bookworm",
        arch=arch.get("x86_64"),
        digest="0123456789abcdef",
        folder=nowhere,
        disk=nowhere / "disk",
        disk_format="qcow2",
        kernel=nowhere / "kernel",
        initrd=nowhere / "initrd",
        cmdline="root=/dev/vda rw",
        release="6.1.0-1-cloud-amd64",
        compiler="gcc-12 12.2.0",
        manifest=nowhere / "manifest.json",
    )


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    tree = tmp_path / "kmod"
    (tree / "core").mkdir(parents=True)
    (tree / "Makefile").write_text("all:\n")
    (tree / "core/main.c").write_text("int x;\n")
    return tree


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A relocatable ELF file with debug information: what strip expects of a module."""
    folder = tmp_path_factory.mktemp("elf")
    (folder / "m.c").write_text("int hs_core_value(void) { return 42; }\n")
    subprocess.run(["gcc", "-g", "-c", "m.c", "-o", "m.o"], cwd=folder, check=True)
    return (folder / "m.o").read_bytes()


def archive(members: dict[str, bytes], *, kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class FakeGuest:
    """Answers as a guest would whose make prints `says` and ends with `status`."""

    def __init__(self, members: dict[str, bytes], *, says: bytes = b"CC hs_core.o", status: int = 0) -> None:
        self.members, self.says, self.status = members, says, status
        self.commands: list[str] = []
        self.sent: list[str] = []
        self.fails: Exception | None = None
        self.repeats = 1

    def run(
        self,
        command: str,
        *,
        deadline: Deadline,
        check: bool = True,
        on_line: Callable[[bytes], None] | None = None,
    ) -> Done:
        self.commands.append(command)
        if on_line is not None:
            for _ in range(self.repeats):
                on_line(self.says)
        if self.fails is not None:
            raise self.fails
        return Done(status=self.status, stdout=self.says + b"\n", stderr=b"")

    def put_tar(self, data: bytes, folder: str, *, deadline: Deadline) -> None:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            self.sent = tar.getnames()

    def get_tar(self, folder: str, names: str, *, deadline: Deadline) -> bytes:
        return archive(self.members)


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A program."""
    folder = tmp_path_factory.mktemp("tool")
    (folder / "t.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "t.c", "-o", "t"], cwd=folder, check=True)
    return (folder / "t").read_bytes()


@pytest.fixture
def good(module: bytes, tool: bytes) -> dict[str, bytes]:
    return {"./core/hs_core.ko": module, "tools/hs-ctl": tool, "tools/hs-load": tool}


def build(guest: FakeGuest, image: Image, sources: Path) -> kbuild.Build:
    return kbuild.build_in_guest(guest, image, sources, deadline=Deadline.after(20))


def test_a_build_is_made_once_and_then_found(image: Image, sources: Path, good: dict[str, bytes]) -> None:
    assert kbuild.cached(image, sources, where="guest") is None
    guest = FakeGuest(good)
    made = build(guest, image, sources)
    assert (made.where, guest.sent) == (
        "guest",
        ["Makefile", "core/main.c", "quick/cc", "quick/all.h", "quick/pch.h", "quick/own.h"],
    )
    assert "CC hs_core.o" in (made.folder / "build.log").read_text()
    found = kbuild.cached(image, sources, where="guest")
    assert found is not None
    assert (found.where, found.seconds, found.folder) == ("cache", 0.0, made.folder)
    again = FakeGuest({})
    assert build(again, image, sources).where == "cache"
    assert again.commands == []


def test_a_guest_that_prints_without_end_does_not_fill_our_disk(
    image: Image, sources: Path, good: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kbuild, "LOG_CAP", 2000)
    guest = FakeGuest(good, says=b"\x1b[31mCC " + b"x" * 700)
    guest.repeats = 9
    said = (build(guest, image, sources).folder / "build.log").read_bytes()
    assert 1000 < len(said) <= 2000 and said.endswith(b"x\n") and b"\x1b" not in said


def test_a_complaint_of_a_guests_compiler_moves_no_cursor(image: Image, sources: Path) -> None:
    with pytest.raises(BuildError) as caught:
        build(FakeGuest({}, says=b"core/main.c: error: \x1b[2J\x1b]0;owned\x07no", status=2), image, sources)
    assert "error: no" in caught.value.message and "\x1b" not in caught.value.message


def test_a_guest_gets_no_debug_information_and_gdb_does(image: Image, sources: Path, good: dict[str, bytes]) -> None:
    folder = build(FakeGuest(good), image, sources).folder
    assert b".debug_info" in (folder / "hs_core.ko").read_bytes()
    assert b".debug_info" not in (folder / "strip/hs_core.ko").read_bytes()
    assert sorted(path.name for path in (folder / "strip").iterdir()) == ["hs-ctl", "hs-load", "hs_core.ko"]
    assert (folder / "strip/hs-ctl").stat().st_mode & 0o111


def test_a_damaged_build_is_made_again(image: Image, sources: Path, good: dict[str, bytes]) -> None:
    made = build(FakeGuest(good), image, sources)
    victim = made.folder / "strip/hs_core.ko"
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    assert kbuild.cached(image, sources, where="guest") is None
    assert build(FakeGuest(good), image, sources).where == "guest"
    assert kbuild.cached(image, sources, where="guest") is not None


@pytest.mark.parametrize("change", ["content", "name", "mode", "release", "compiler", "where", "mutants"])
def test_whatever_a_build_depends_on_changes_its_name(image: Image, sources: Path, change: str) -> None:
    before = kbuild.digest(image, sources, where="guest", mutants=False)
    assert before == kbuild.digest(image, sources, where="guest", mutants=False)
    fields = {name: getattr(image, name) for name in image.__slots__}
    where, mutants = "guest", False
    match change:
        case "content":
            (sources / "core/main.c").write_text("int y;\n")
        case "name":
            (sources / "core/main.c").rename(sources / "core/other.c")
        case "mode":
            (sources / "core/main.c").chmod(0o755)
        case "release" | "compiler":
            fields[change] += "x"
        case "where":
            where = "host"
        case "mutants":
            mutants = True
    assert kbuild.digest(Image(**fields), sources, where=where, mutants=mutants) != before


def test_what_a_build_in_place_left_behind_is_no_source(image: Image, sources: Path, module: bytes) -> None:
    before = kbuild.digest(image, sources, where="guest", mutants=False)
    for name in ("core/main.o", "core/hs_core.ko", "core/hs_core.mod.c", "core/.main.o.cmd", "Module.symvers"):
        (sources / name).write_text("left over")
    (sources / "hs-ctl").write_bytes(module)
    assert kbuild.digest(image, sources, where="guest", mutants=False) == before


def test_a_packed_tree_is_the_same_bytes_every_time(sources: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sources, copy)
    (copy / "core/main.c").touch()
    assert kmodtree.pack(sources) == kmodtree.pack(copy)


def test_a_failed_build_tells_the_first_complaint_and_keeps_only_its_log(
    image: Image, sources: Path, cache: Path, good: dict[str, bytes]
) -> None:
    guest = FakeGuest(good, says=b"core/main.c:1:5: error: 'x' is ugly [-Werror]", status=2)
    with pytest.raises(BuildError, match="core/main.c:1:5: error: 'x' is ugly") as caught:
        build(guest, image, sources)
    log_file = Path(caught.value.hint.removeprefix("log: "))
    assert "is ugly" in log_file.read_text()
    assert [path.name for path in (cache / "builds").iterdir() if not path.name.endswith(".lock")] == [log_file.name]
    assert build(FakeGuest(good), image, sources).where == "guest"
    assert not log_file.exists()


def test_a_guest_that_is_lost_is_no_compiler_error(image: Image, sources: Path, good: dict[str, bytes]) -> None:
    guest = FakeGuest(good)
    guest.fails = GuestLost("Kernel panic")
    with pytest.raises(GuestLost):
        build(guest, image, sources)
    guest.fails = DeadlineError("'make' did not end within 1 s")
    with pytest.raises(BuildError, match="did not end within 1 s"):
        build(guest, image, sources)
    assert kbuild.cached(image, sources, where="guest") is None


@pytest.mark.parametrize("absent", ["./core/hs_core.ko", "tools/hs-ctl", "tools/hs-load"])
def test_a_make_that_ends_well_without_its_products_has_failed(
    image: Image, sources: Path, good: dict[str, bytes], absent: str
) -> None:
    del good[absent]
    with pytest.raises(BuildError, match=f"without making {Path(absent).name}"):
        build(FakeGuest(good), image, sources)
    assert kbuild.cached(image, sources, where="guest") is None


@pytest.mark.parametrize(
    "data",
    [
        archive({"../../etc/passwd": b"root"}),
        archive({"hs_core.ko/..": b"x"}),
        archive({"hs_core.ko": b""}, kind=tarfile.SYMTYPE),
        archive({"core/hs_core.ko": b"one", "load/hs_core.ko": b"two"}),
        archive({"build.log": b"forged"}),
        archive({"hs_core.ko": b"x" * 2000})[:1000],
        b"no archive",
    ],
    ids=["path", "dots", "link", "twice", "log", "cut", "text"],
)
def test_what_a_guest_sends_is_not_trusted(data: bytes, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(BuildError):
        kmodtree.unpack(data, work)
    assert not (work / "build.log").exists()
    assert not (tmp_path.parent / "etc").exists()


def test_two_labs_build_the_same_thing_once(image: Image, sources: Path, good: dict[str, bytes]) -> None:
    inside, go = threading.Event(), threading.Event()

    class Slow(FakeGuest):
        def put_tar(self, data: bytes, folder: str, *, deadline: Deadline) -> None:
            inside.set()
            assert go.wait(20)

    results: list[str] = []
    first = threading.Thread(target=lambda: results.append(build(Slow(good), image, sources).where))
    first.start()
    assert inside.wait(20)
    second_guest = FakeGuest(good)
    second = threading.Thread(target=lambda: results.append(build(second_guest, image, sources).where))
    second.start()
    go.set()
    first.join(20)
    second.join(20)
    assert sorted(results) == ["cache", "guest"]
    assert second_guest.commands == []


def test_a_build_waits_for_the_same_build_no_longer_than_its_deadline(
    image: Image, sources: Path, good: dict[str, bytes], cache: Path
) -> None:
    name = kbuild.digest(image, sources, where="guest", mutants=False)
    with shelf.locked(cache / "builds" / name), pytest.raises(DeadlineError, match=f"other work on {name}"):
        kbuild.build_in_guest(FakeGuest(good), image, sources, deadline=Deadline.after(0.05))


def test_the_manifest_names_every_file(image: Image, sources: Path, good: dict[str, bytes]) -> None:
    folder = build(FakeGuest(good), image, sources).folder
    sums = json.loads((folder / "build.json").read_text())["sha256"]
    assert sorted(sums) == sorted(
        [*(f"{name}" for name in ("hs-ctl", "hs-load", "hs_core.ko"))]
        + [f"strip/{name}" for name in ("hs-ctl", "hs-load", "hs_core.ko")]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt\n#include <linux/module.h>\n', "own"),
        ("#include <linux/module.h>\n#define DEBUG\n", "none"),
        ("/* #include comes */\n#define DEBUG\n#include <linux/module.h>\n", "plain"),
        ("#define pr_fmt(fmt) fmt\n# define CREATE_TRACE_POINTS\n#include <linux/module.h>\n", "plain"),
        ("#undef CONFIG_SMP\n#include <linux/module.h>\n", "plain"),
    ],
)
def test_files_whose_macros_change_the_headers_are_told_apart(sources: Path, text: str, expected: str) -> None:
    (sources / "core/special.c").write_text(text)
    own, plain = kmodtree.define_before_include(sources)
    assert ("own" if own == ["special.c"] else "plain" if plain == ["special.c"] else "none") == expected
    assert len(own) + len(plain) == (expected != "none")


def test_the_shipped_tree_can_be_packed() -> None:
    names = {str(path.relative_to(paths.kmod_dir())) for path in kmodtree.source_files(paths.kmod_dir())}
    assert "compat.h" in names
    assert not [name for name in names if name.endswith((".o", ".ko"))]
