# SPDX-License-Identifier: GPL-2.0-or-later
"""What lab gc takes out of the cache, and what it never does."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from lab import cli, headers, image, shelf

DAY_S = 86400.0


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LAB_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "cache"


def entry(folder: Path, *, days: float = 0.0, keys: object = None) -> Path:
    """An entry of the cache with 2 MiB in it, last used some days ago."""
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(b"x" * (2 << 20))
    if keys is not None:
        (folder / "keys.json").write_text(json.dumps(keys))
    at = time.time() - days * DAY_S
    os.utime(folder, (at, at))
    return folder


def collect(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What lab gc says it removed."""
    assert cli.call(["gc"]) == 0
    return [line.removeprefix("removed ") for line in capsys.readouterr().out.splitlines()]


def test_what_is_no_longer_used_is_removed_and_told_with_its_size(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    current = min(image.wanted())
    old = "bookworm-x86_64-0123456789abcdef"
    kept = [
        entry(cache / "warm/a", keys={"image": current}),
        entry(cache / f"headers/{current}-{headers.FORMAT}"),
        entry(cache / "builds/0123", days=13),
    ]
    gone = [
        entry(cache / "warm/b", keys={"image": old}),
        entry(cache / "warm/c"),  # of a lab that did not say which image
        entry(cache / "warm/d", keys=[]),
        entry(cache / "warm/e", keys={"image": current}, days=15),
        entry(cache / f"headers/{old}-{headers.FORMAT}"),
        entry(cache / f"headers/{current}-0"),
        entry(cache / "builds/4567", days=15),
        *(entry(cache / shelf_ / ".name.abcd1234") for shelf_ in ("warm", "headers", "builds", "images")),
    ]
    assert sorted(collect(capsys)) == sorted(f"{path} (2 MiB)" for path in gone)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)
    assert collect(capsys) == []


def test_with_an_image_goes_what_was_made_from_it(cache: Path) -> None:
    name, other = "sid-x86_64-0123456789abcdef", "sid-x86_64-1111111111111111"
    gone = [
        entry(cache / f"images/{name}"),
        entry(cache / "warm/a", keys={"image": name}),
        entry(cache / f"headers/{name}-{headers.FORMAT}"),
    ]
    kept = [
        entry(cache / f"images/{other}"),
        entry(cache / "warm/b", keys={"image": other}),
        entry(cache / "warm/c", keys=[]),
        entry(cache / f"headers/{other}-{headers.FORMAT}"),
        entry(cache / f"builds/{name}"),  # by its contents
    ]
    image.remove_folder(gone[0])
    assert not any(path.exists() for path in gone) and all(path.exists() for path in kept)


def test_what_is_being_made_is_spared(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spared = [entry(cache / "builds/4567", days=15), entry(cache / "builds/.4567.abcd1234")]
    with shelf.lock_of(spared[0]).open("w") as maker:
        assert shelf.taken(maker)
        assert collect(capsys) == []
        assert all(path.exists() for path in spared)
    assert len(collect(capsys)) == 2


def test_what_a_living_lab_may_use_is_spared(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unused = entry(cache / "warm/a", keys={"image": "of another checkout"}, days=3)
    used = entry(cache / "warm/b", keys={"image": "of another checkout"}, days=1)
    lock = cache / "racks/r1.lock"
    lock.parent.mkdir()
    lock.write_text("/nonexistent/r1\n")
    os.utime(lock, (time.time() - 2 * DAY_S, time.time() - 2 * DAY_S))
    with lock.open() as lab:
        fcntl.flock(lab, fcntl.LOCK_EX)
        assert collect(capsys) == [f"{unused} (2 MiB)"]
    assert len(collect(capsys)) == 2  # the dead lab, and what it used
    assert not used.exists()


def test_using_an_entry_keeps_it(cache: Path) -> None:
    old = entry(cache / "builds/4567", days=15)
    assert shelf.stale(old)
    shelf.touch(old)
    assert not shelf.stale(old)


def test_logs_of_failed_builds_and_old_measurements_go_too(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["builds/0123.build.log", "builds/0124.build.log", "host/speed-1.json", "host/accel-2.json"]
    for name, days in zip(names, (15, 13, 15, 13), strict=True):
        file = cache / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
        os.utime(file, (time.time() - days * DAY_S,) * 2)
    assert collect(capsys) == [str(cache / name) for name in names[::2]]
    assert [(cache / name).exists() for name in names] == [False, True] * 2
