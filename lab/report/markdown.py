# SPDX-License-Identifier: GPL-2.0-or-later
"""report.md: one table, then each red cell with what to look at and what to type."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lab import known
from lab.cellresult import CellResult
from lab.report import compare
from lab.report.figures import clock, count, duration, figures, plain, tally

_EXCERPT_LINES = 30


def render(head: Mapping[str, Any], results: Sequence[CellResult]) -> str:
    """The whole report."""
    lines = [f"# Run {head['run']}", "", tally(results) + ".", ""]
    lines += _facts(head, len(results))
    lines += _table(results)
    lines += _compared(results)
    lines += _isolation([result for result in results if result.isolation])
    lines += _transitions([result for result in results if result.transitions])
    lines += _opens([result for result in results if result.policy])
    for result in results:
        if result.red:
            lines += _red(result)
    lines += _known(head, results)
    skipped = [result for result in results if result.status == "SKIP"]
    if skipped:
        lines += ["## Skipped", "", *(f"- {_code(result.id)}: {_text(result.reason)}" for result in skipped), ""]
    return "\n".join(lines)


def _facts(head: Mapping[str, Any], done: int) -> list[str]:
    wanted = len(head["matrix"].get("cells", ()))
    facts = [("started", head["started"]), ("took", clock(float(head["duration_s"]))), ("seed", head["seed"])]
    facts += [(name, head["host"][name]) for name in sorted(head["host"])]
    if done < wanted:
        facts.append(("interrupted", f"{wanted - done} of {wanted} cells did not run"))
    lines = [f"- {name}: {_text(plain(value))}" for name, value in facts]
    if done < wanted:
        lines[-1] += f"; go on with `lab run matrix --resume {head['run']}`"
    return [*lines, ""]


def _table(results: Sequence[CellResult]) -> list[str]:
    rows = [
        "| cell | verdict | s | calls | failed | swaps | blackout | gap as seen | drain p50 | interrupts |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        row = figures(result)
        cells = (row.seconds, row.calls, row.failed, row.swaps, row.blackout, row.gap, row.drain, row.irqs)
        rows.append(f"| {_code(result.id)} | {result.verdict} | {' | '.join(cells)} |")
    return [*rows, ""]


def _compared(results: Sequence[CellResult]) -> list[str]:
    """Mechanisms side by side, where there are several."""
    lines: list[str] = []
    for table in compare.tables(results):
        lines += [f"### {_text(table.title)}", "", f"| {' | '.join(compare.HEADS)} |"]
        lines.append(f"|---|{'---:|' * (len(compare.HEADS) - 2)}---|")
        lines += [f"| {' | '.join(_text(text) for text in row.texts())} |" for row in table.rows]
        lines.append("")
    return ["## Mechanisms side by side", "", compare.NOTE, "", *lines] if lines else []


def _isolation(results: Sequence[CellResult]) -> list[str]:
    """What mechanisms that cut calls off did to them, and how they prove that nothing runs in old text."""
    if not results:
        return []
    lines = [
        "## Calls cut off",
        "",
        "| cell | by | cut off | made again | by callers | probes contained | flush p50 | fault p50 | retire p50 |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        calls, proof, steps = result.calls or {}, result.isolation or {}, result.swap_ns or {}
        counts = [count(calls.get(name)) for name in ("aborted", "retried", "recovered")]
        counts.append(f"{count(proof.get('contained'))} of {count(proof.get('probes'))}")
        times = [duration((steps.get(name) or {}).get("p50")) for name in ("flush", "fault", "retire")]
        lines.append(f"| {_code(result.id)} | {_text(str(proof.get('by')))} | {' | '.join(counts + times)} |")
    return [*lines, ""]


def _opens(results: Sequence[CellResult]) -> list[str]:
    """What came of opens that an edition had to allow or deny; the hole of a mechanism that leaves one."""
    if not results:
        return []
    lines = [
        "## Access control",
        "",
        "| cell | opens | refused | nobody to ask | forbidden files opened | allowed files refused |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        opened, calls = result.policy or {}, result.calls or {}
        counts = [opened.get("opens"), opened.get("refused"), calls.get("failed")]
        counts += [opened.get("forbidden_opened"), opened.get("allowed_refused")]
        lines.append(f"| {_code(result.id)} | {' | '.join(count(one) for one in counts)} |")
    return [*lines, ""]


def _transitions(results: Sequence[CellResult]) -> list[str]:
    """What livepatch needed to move the tasks, and who held it up."""
    if not results:
        return []
    lines = [
        "## Transitions of livepatch",
        "",
        "| cell | transitions | longest | looks asked for | late calls | stalled | last of them |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for result in results:
        told = result.transitions or {}
        numbers = [count(told.get("transitions")), duration(told.get("longest_ns"))]
        numbers += [count(told.get(one)) for one in ("asked", "late", "stalled")]
        names = _text(", ".join(told.get("stalled_names") or ()) or "-")
        lines.append(f"| {_code(result.id)} | {' | '.join(numbers)} | {names} |")
    return [*lines, ""]


def _known(head: Mapping[str, Any], results: Sequence[CellResult]) -> list[str]:
    """Failures that do not count, and what to do about the list of them."""
    lines = [
        f"- {_code(result.id)} {result.status.value}: {_text(result.reason)}; known: {_text(result.known)}"
        for result in results
        if result.known
    ]
    lines += [f"- {_text(line)}" for line in known.review(head, results)]
    return ["## Known failures", "", *lines, ""] if lines else []


def _red(result: CellResult) -> list[str]:
    lines = [f"## {result.status.value} {result.id}", "", _text(result.reason), ""]
    if result.next:
        lines += ["Next:", "", f"    {result.next}", ""]
    lines += [f"Files: `cells/{result.id}/`", ""]
    if not_ok := [one for one in result.oracles if one["ok"] is not True]:
        lines += [f"- oracle {one['oracle']}: {_text(str(one['detail']))}" for one in not_ok]
        lines.append("")
    for splat in (result.splats or [])[:1]:
        lines += _fenced(splat["excerpt"][:_EXCERPT_LINES])
    return lines


def _fenced(lines: Sequence[str]) -> list[str]:
    """A block in which nothing is markup: its fence is longer than any in it."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, *lines, fence, ""]


def _text(text: str) -> str:
    """One line of text in which nothing is markup: reasons quote what a guest printed."""
    line = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#!" else char for char in line)


def _code(text: str) -> str:
    return f"`{text}`"
