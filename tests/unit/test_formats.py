# SPDX-License-Identifier: GPL-2.0-or-later
"""The files for other tools, read by what others wrote for them: KCIDB's library, a JUnit schema, a TAP parser."""

from __future__ import annotations

import json
import unittest
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import kcidb_io
import pytest
from lxml import etree
from tap.loader import Loader
from tap.parser import Parser

from lab.cellresult import CellResult
from lab.errors import UsageError
from lab.report import junit, kcidb, ktap
from lab.verdict import Status
from tests import runs

LOADS = ("syscall", "irq", "mixed", "policy", "stuck", "exception")
HOSTILE = "\x00\x1b[2J<&]]>\u202e # SKIP not me\nok 1 - forged\x7f"


@pytest.fixture
def results(tmp_path: Path) -> list[CellResult]:
    """A cell of every verdict, one of which ran a mutant."""
    said = runs.raw(swaps=2, gaps=5)
    found = [
        runs.put(tmp_path, f"x86_64/trixie/refcount/{load}", status, said=said)
        for load, status in zip(LOADS, Status, strict=True)
    ]
    return [*found, replace(found[1], id="x86_64/trixie/refcount/irq@smp4", hardware="smp4", mutant="lost_irq")]


def kcidb_of(results: list[CellResult]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kcidb.render(runs.head(results), results))
    assert kcidb_io.schema.LATEST.is_valid(found), kcidb_io.schema.LATEST.validate(found)
    return found


def test_kcidb_takes_the_file(results: list[CellResult]) -> None:
    found = kcidb_of(results)
    (checkout,), (build,) = found["checkouts"], found["builds"]
    assert build["checkout_id"] == checkout["id"] == "lab:2026-01-02_030405-7/trixie"
    assert {test["build_id"] for test in found["tests"]} == {build["id"]}
    assert len({test["id"] for test in found["tests"]}) == len(found["tests"])
    cells = {test["path"]: test["status"] for test in found["tests"] if "verdict" in test.get("misc", ())}
    told = dict(zip(LOADS, ("PASS", "FAIL", "FAIL", "FAIL", "MISS", "SKIP"), strict=True))
    assert cells == {
        **{f"lab.refcount.{load}": status for load, status in told.items()},
        "lab.mutant.lost_irq.refcount.irq": "FAIL",  # never beside what is not broken on purpose
    }


def test_kcidb_is_told_oracles_and_figures(results: list[CellResult]) -> None:
    tests = {test["path"]: test for test in kcidb_of(results[:1])["tests"]}
    assert tests["lab.refcount.syscall.oracle_1_conservation"]["status"] == "PASS"
    assert tests["lab.refcount.syscall.oracle_4_interrupts"]["status"] == "SKIP"
    drain = tests["lab.refcount.syscall.drain_p50"]
    assert drain["status"] == "DONE"
    assert drain["number"]["value"] == pytest.approx((results[0].swap_ns or {})["drain"]["p50"] / 1e9)  # type: ignore[index]


def test_kcidb_takes_what_a_guest_says(tmp_path: Path, results: list[CellResult]) -> None:
    one = replace(results[2], reason=HOSTILE * 9000, release=HOSTILE, kernel=HOSTILE, next=HOSTILE, hardware=HOSTILE)
    found = kcidb_of([replace(one, splats=[{"excerpt": [HOSTILE] * 90}])])
    assert len(found["tests"][0]["log_excerpt"]) == kcidb.EXCERPT_CHARS
    assert not {"\x00", "\x1b", "\x7f"} & set(json.dumps(found, ensure_ascii=False))


def test_kcidb_is_told_in_the_users_name(monkeypatch: pytest.MonkeyPatch, results: list[CellResult]) -> None:
    monkeypatch.setenv(kcidb.VARIABLE, "my_ci")
    assert {one["origin"] for kind in ("checkouts", "builds", "tests") for one in kcidb_of(results)[kind]} == {"my_ci"}
    monkeypatch.setenv(kcidb.VARIABLE, "My CI")
    with pytest.raises(UsageError, match="is no origin"):
        kcidb.origin()


def schema() -> etree.XMLSchema:
    """Ant's JUnit schema, as a package of others ships it."""
    text = resources.files("ub_test_reports").joinpath("schemas/JUnit.xsd").read_bytes()
    return etree.XMLSchema(etree.fromstring(text))


def test_a_junit_schema_takes_the_file(results: list[CellResult]) -> None:
    told = [result for result in results if result.status is not Status.SKIP]
    schema().assertValid(etree.fromstring(junit.render(runs.head(told), told).encode()))


def test_a_junit_schema_takes_the_file_but_for_skips(results: list[CellResult]) -> None:
    """Ant had none when that schema was written: without them the rest must be as it wants it."""
    tree = etree.fromstring(junit.render(runs.head(results), results).encode())
    assert not schema().validate(tree)
    (skipped,) = tree.xpath("//testcase/skipped")
    assert skipped.get("message") == "the kernel has no livepatch" and len(skipped) == 0
    skipped.getparent().remove(skipped)
    (suite,) = tree.xpath("testsuite")
    assert suite.attrib.pop("skipped") == "1"
    schema().assertValid(tree)


def test_a_junit_schema_takes_what_a_guest_says(results: list[CellResult]) -> None:
    one = replace(results[1], reason=HOSTILE, splats=[{"excerpt": [HOSTILE]}])
    schema().assertValid(etree.fromstring(junit.render(runs.head([one]), [one]).encode()))


def taken(folder: Path, text: str) -> unittest.TestResult:
    """What a TAP parser makes of one level of KTAP. It adds a failure where the plan does not hold.

    KTAP differs from TAP in its version line and in how subtests are indented; the parser knows neither.
    """
    version, *lines = text.splitlines()
    assert version == "KTAP version 1"
    unknown = [line for line in lines if Parser().parse_line(line).category == "unknown"]
    assert unknown == [line for line in lines if line.startswith("  ")]
    (folder / "level.tap").write_text("\n".join(lines) + "\n")
    found = unittest.TestResult()
    Loader().load_suite_from_file(str(folder / "level.tap")).run(found)
    return found


def failures(found: unittest.TestResult) -> list[str]:
    return [str(test.shortDescription()).removeprefix("- ") for test, _ in found.failures]


def test_a_tap_parser_takes_the_file(tmp_path: Path, results: list[CellResult]) -> None:
    found = taken(tmp_path, ktap.render(results))
    assert found.testsRun == len(results)
    assert failures(found) == [result.id for result in results if result.status.red]
    assert [reason for _, reason in found.skipped] == ["the kernel has no livepatch"]


def test_a_tap_parser_takes_the_oracles_of_a_cell(tmp_path: Path, results: list[CellResult]) -> None:
    one = replace(results[1], oracles=[*results[1].oracles, {"oracle": 5, "ok": False, "detail": HOSTILE}])
    lines = ktap.render([one]).splitlines()
    found = taken(tmp_path, "\n".join(line[2:] for line in lines if line.startswith("  ")))
    assert (found.testsRun, failures(found), len(found.skipped)) == (3, ["oracle 5 dmesg"], 1)


def test_a_tap_parser_takes_what_a_guest_says(tmp_path: Path, results: list[CellResult]) -> None:
    found = taken(tmp_path, ktap.render([replace(results[4], reason=HOSTILE)]))
    assert (found.testsRun, failures(found)) == (1, [results[4].id])


def test_the_tap_parser_is_no_decoration(tmp_path: Path, results: list[CellResult]) -> None:
    text = ktap.render(results)
    assert "Expected 9 tests but only 7 ran." in failures(taken(tmp_path, text.replace("1..7", "1..9")))
    assert "Missing a plan." in failures(taken(tmp_path, text.replace("1..7\n", "")))
