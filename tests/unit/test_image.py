# SPDX-License-Identifier: GPL-2.0-or-later
"""The image cache: built once, seen whole, verified on use, repaired when damaged, nothing left on failure."""

import errno
import json
import math
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lab import arch as arches
from lab import image, imagebuild, shelf
from lab.deadline import Deadline, wait_until
from lab.errors import ImageError, UsageError

X86 = arches.get("x86_64")


class Builder:
    """Stands in for imagebuild.build: writes small files, counts, fails on demand."""

    def __init__(self) -> None:
        self.builds = 0
        self.error: BaseException | None = None
        self.seconds = 0.0

    def __call__(self, recipe: Any, arch: Any, folder: Path, *, mirror: str, progress: Any) -> dict[str, Any]:
        self.builds += 1
        progress("building")
        time.sleep(self.seconds)
        for name in image.FILES:
            (folder / name).write_bytes(name.encode() * 1000)
            if self.error is not None:
                raise self.error
        return {"release": "6.1.0", "compiler": "gcc-12 12.2", "mirror": mirror, "packages": {"gcc": "12"}}


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LAB_MIRROR", "http://mirror.example/debian")
    builder = Builder()
    monkeypatch.setattr(imagebuild, "build", builder)
    return builder


def ensure() -> image.Image:
    return image.ensure("bookworm", X86, progress=lambda text: None)


def entries() -> list[str]:
    """What the cache holds beside lock files."""
    return sorted(path.name for path in image.images_dir().iterdir() if not path.name.endswith(".lock"))


def rewrite(path: Path, data: bytes, *, keep_time: bool = False) -> None:
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


def test_an_image_is_built_once_and_described(builder: Builder) -> None:
    first, second = ensure(), ensure()
    assert first == second
    assert builder.builds == 1
    assert (first.release, first.compiler, first.disk_format) == ("6.1.0", "gcc-12 12.2", "qcow2")
    assert "root=/dev/vda" in first.cmdline
    assert "console=" not in first.cmdline
    manifest = json.loads(first.manifest.read_text())
    assert manifest["packages"] == {"gcc": "12"}
    assert manifest["mirror"] == "http://mirror.example/debian"
    assert set(manifest["files"]) == {"disk.qcow2", "kernel", "initrd"}
    assert manifest["files"]["kernel"]["sha256"] == image.sha256(first.kernel)
    assert entries() == [first.folder.name]


@pytest.mark.parametrize("name", image.FILES)
def test_a_truncated_file_is_found_and_the_image_built_again(builder: Builder, name: str) -> None:
    path = ensure().folder / name
    whole = path.read_bytes()
    rewrite(path, whole[:-1], keep_time=True)
    said: list[str] = []
    again = image.ensure("bookworm", X86, progress=said.append)
    assert builder.builds == 2
    assert (again.folder / name).read_bytes() == whole
    assert any("damaged" in line for line in said)


@pytest.mark.parametrize("damage", ["changed", "missing", "manifest cut", "manifest missing", "no manifest keys"])
def test_other_damage_is_found_too(builder: Builder, damage: str) -> None:
    built = ensure()
    match damage:
        case "changed":
            rewrite(built.disk, b"x" + built.disk.read_bytes()[1:])
        case "missing":
            built.initrd.unlink()
        case "manifest cut":
            built.manifest.write_text(built.manifest.read_text()[:100])
        case "manifest missing":
            built.manifest.unlink()
        case "no manifest keys":
            built.manifest.write_text("{}")
    ensure()
    assert builder.builds == 2


def test_a_new_time_stamp_alone_costs_one_checksum_and_no_build(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = ensure()
    rewrite(built.disk, built.disk.read_bytes())
    summed: list[str] = []
    real = image.sha256

    def counted(path: Path) -> str:
        summed.append(path.name)
        return real(path)

    monkeypatch.setattr(image, "sha256", counted)
    ensure()
    ensure()
    assert builder.builds == 1
    assert summed == ["disk.qcow2"]


def test_an_untouched_image_is_not_read(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure()
    monkeypatch.setattr(image, "sha256", lambda path: pytest.fail(f"{path} was read"))
    ensure()


@pytest.mark.parametrize("error", [ImageError("no mirror"), KeyboardInterrupt(), OSError(errno.EIO, "I/O error")])
def test_a_failed_build_leaves_nothing(builder: Builder, error: BaseException) -> None:
    builder.error = error
    with pytest.raises((ImageError, KeyboardInterrupt)):
        ensure()
    assert entries() == []
    builder.error = None
    ensure()
    assert builder.builds == 2


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ImageError("cannot get packages: You don't have enough free space in /x/."),
        ImageError("tar: x: Cannot write: No space left on device"),
    ],
)
def test_a_full_disk_is_one_line_whoever_meets_it(builder: Builder, error: Exception) -> None:
    builder.error = error
    with pytest.raises(ImageError, match="no space in .*MiB are free") as caught:
        ensure()
    assert "\n" not in caught.value.message
    assert "LAB_CACHE_DIR" in caught.value.hint
    assert entries() == []


def test_nothing_is_begun_without_space(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free=100 * 2**20))
    with pytest.raises(ImageError, match="100 MiB are free"):
        ensure()
    assert builder.builds == 0


def test_what_a_killed_build_left_is_removed(builder: Builder) -> None:
    folder = ensure().folder
    shutil.rmtree(folder)
    left = folder.parent / f".{folder.name}.abc123"
    left.mkdir()
    (left / "disk.raw").write_text("half")
    ensure()
    assert entries() == [folder.name]


def test_two_workers_at_once_build_once_and_speak_of_no_other_lab(builder: Builder) -> None:
    builder.seconds = 0.05
    said: list[str] = []
    found: list[image.Image] = []
    threads = [
        threading.Thread(target=lambda: found.append(image.ensure("bookworm", X86, progress=said.append)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builder.builds == 1
    assert len(set(found)) == 1
    assert not any("another lab" in line for line in said)


def test_another_lab_that_builds_the_same_image_is_waited_for(builder: Builder) -> None:
    folder = ensure().folder
    image.remove_folder(folder)
    said: list[str] = []
    with shelf.lock_of(folder).open("w") as theirs:
        assert shelf.taken(theirs)
        waiter = threading.Thread(target=lambda: image.ensure("bookworm", X86, progress=said.append))
        waiter.start()
        wait_until(lambda: any("another lab" in line for line in said), "a word of waiting", Deadline.after(5))
        assert builder.builds == 1
    waiter.join(5)
    assert builder.builds == 2


def test_an_unknown_recipe_is_the_users_error(builder: Builder) -> None:
    with pytest.raises(UsageError, match="unknown kernel 'potato'"):
        image.ensure("potato", X86, progress=lambda text: None)
    assert not image.images_dir().exists()


def test_images_are_listed_and_collected(builder: Builder) -> None:
    built = ensure()
    other = image.ensure("trixie", arches.get("aarch64"), progress=lambda text: None)
    assert {one.folder for one in image.cached()} == {built.folder, other.folder}
    assert built.folder.name in image.wanted()
    image.remove_folder(other.folder)
    assert image.cached() == [built]

    old = built.folder.parent / "bookworm-x86_64-0123456789abcdef"
    shutil.copytree(built.folder, old)
    killed = built.folder.parent / f".{old.name}.xyz"
    killed.mkdir()
    assert image.gc(math.inf) == [f"{killed} (0 MiB)", f"{old} (0 MiB)"]
    assert entries() == [built.folder.name]
    assert image.gc(math.inf) == []


def test_collecting_spares_an_old_image_that_a_living_lab_may_use(builder: Builder) -> None:
    old = ensure().folder.rename(image.images_dir() / "bookworm-x86_64-0123456789abcdef")
    began_s = old.stat().st_mtime - 1
    assert image.gc(began_s) == []
    os.utime(old, (began_s - 1, began_s - 1))
    assert image.gc(began_s) == [f"{old} (0 MiB)"]


def test_collecting_spares_what_a_lab_builds_now(builder: Builder) -> None:
    ensure()
    folder = image.images_dir() / "trixie-x86_64-0123456789abcdef"
    work = folder.parent / f".{folder.name}.xyz"
    with image.locked(folder, progress=lambda text: None):
        work.mkdir()
        assert image.gc(math.inf) == []
        assert work.exists()
    assert image.gc(math.inf) == [f"{work} (0 MiB)"]
