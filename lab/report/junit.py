# SPDX-License-Identifier: GPL-2.0-or-later
"""junit.xml: failures are wrong results; errors are crashes, hangs and infrastructure; skips carry their reason.

A known failure is a skip that says so: it must not turn a dashboard red.
The format is whatever its readers take. This keeps to the oldest and strictest schema, that of Ant's JUnitReport, which
wants a host name, times without a zone and the output of the suite; what it lacks, and every reader knows, are skips.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from lab.cellresult import CellResult
from lab.verdict import Status

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(head: Mapping[str, Any], results: Sequence[CellResult]) -> str:
    """One suite per run; a cell is a case, its class is the mechanism."""
    suite = TestSuite("lab")
    suite.hostname = "localhost"  # the host is told by the properties
    suite.timestamp = _utc(str(head["started"]))
    for name in ("run", "seed"):
        suite.add_property(name, str(head[name]))
    for name, value in sorted(head["host"].items()):
        suite.add_property(f"host.{name}", _xml(str(value)))
    for result in results:
        suite.add_testcase(_case(result))
    suite.update_statistics()  # type: ignore[no-untyped-call]
    _strict(suite._elem, skips=suite.skipped)
    xml = JUnitXml()
    xml.add_testsuite(suite)
    text: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text.decode()}\n'


def _strict(suite: Any, *, skips: int) -> None:
    """What the schema asks of a suite and junitparser has no name for."""
    suite.set("package", "lab")
    suite.set("id", "0")
    for tag in ("system-out", "system-err"):
        suite.append(suite.makeelement(tag, {}))
    if not skips:
        suite.attrib.pop("skipped", None)


def _case(result: CellResult) -> TestCase:
    case = TestCase(result.id, classname=f"lab.{result.mechanism}", time=result.duration_s or 0.0)
    reason = _xml(result.reason)
    if result.known:
        case.result = [Skipped(_xml(f"known {result.status.value}: {result.reason}; {result.known}"))]
    elif result.status is Status.SKIP:
        case.result = [Skipped(reason)]
    elif result.status is Status.FAIL:
        case.result = [_body(Failure(reason, result.status.value), result)]
    elif result.status is not Status.PASS:
        case.result = [_body(Error(reason, result.status.value), result)]
    return case


def _body(outcome: Any, result: CellResult) -> Any:
    lines = [f"oracle {one['oracle']}: {one['detail']}" for one in result.oracles if one["ok"] is not True]
    lines += [line for splat in (result.splats or [])[:1] for line in splat["excerpt"]]
    lines += [f"next: {result.next}"] if result.next else []
    outcome.text = _xml("\n".join(lines))
    return outcome


def _utc(started: str) -> str:
    """A run's beginning without its zone, which is UTC."""
    return datetime.fromisoformat(started).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _xml(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return _NO_XML.sub("\ufffd", text)
