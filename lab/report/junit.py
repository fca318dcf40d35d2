# SPDX-License-Identifier: GPL-2.0-or-later
"""junit.xml: failures are wrong results; errors are crashes, hangs and infrastructure; skips carry their reason.

A known failure is a skip that says so: it must not turn a dashboard red.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from lab.cellresult import CellResult
from lab.verdict import Status

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(head: Mapping[str, Any], results: Sequence[CellResult]) -> str:
    """One suite per run; a cell is a case, its class is the mechanism."""
    suite = TestSuite("lab")
    suite.timestamp = str(head["started"])
    for name in ("run", "seed"):
        suite.add_property(name, str(head[name]))
    for name, value in sorted(head["host"].items()):
        suite.add_property(f"host.{name}", _xml(str(value)))
    for result in results:
        suite.add_testcase(_case(result))
    xml = JUnitXml("lab")
    xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    text: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text.decode()}\n'


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


def _xml(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return _NO_XML.sub("\ufffd", text)
