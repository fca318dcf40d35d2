# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel log text -> events: splats and taints. Pure; one scanner for a whole dmesg and for a live console.

Idea: a splat is a headline (a phrase of `lab.phrases`), what the kernel adds to it (the message of a
WARN before it, the die line after it), and the register dump that names the place. The scanner keeps the splats
that are still being printed open and hands each following line to the right one.

Hard case: two CPUs print at once. Records are whole but alternate, so several splats are open at a time. Where the
kernel stamps records with their caller ([T12], [C0]), each caller has its own; without, a register line goes to
the open splat that already names that symbol, else to the oldest that has no register line yet.

The text comes from a guest and is hostile: terminal escapes and control characters are dropped, lines and
counts capped, and every step is linear in the input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lab.events import Events, Splat, Taint
from lab.phrases import Kind, Phrase, find
from lab.untrusted import clean

LINE_BYTES = 8192  # of one raw line; the rest of it is dropped
STAMP_CHARS = 60  # of a line, in which its stamp is looked for
LINE_CHARS = 1024  # of one clean record: what printk itself holds
MAX_SPLATS = 64
MAX_TAINTS = 64
EXCERPT_LINES = 60
FRAMES = 16
OPEN_SPLATS = 8
WARN_MESSAGE_LINES = 4

_STAMP = re.compile(r"(?:<\d{1,3}>)?\[ {0,8}\d{1,8}\.\d{6}\](?:\[ {0,8}([TC]\d{1,8})\])? ?")
_SECONDS = re.compile(r"(?:<\d{1,3}>)?\[ {0,8}(\d{1,8})\.(\d{6})\]")
_KMSG = re.compile(r"\d{1,5},\d{1,20},\d{1,20},[-c+](?:,caller=([TC]\d{1,8}))?[^;]{0,80};")

_CUT = "[ cut here ]"
_END = "---[ end "
_SYMBOL = r"((?:[A-Za-z_][\w.$]{0,120}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[\w{1,60}\])?)|0x[0-9a-f]{1,16})"
_PC = re.compile(rf"^(?:RIP: 00(?:10|08):|pc : ){_SYMBOL}")
_INLINE = re.compile(rf" at (?:[\w./-]{{1,200}}:\d{{1,7}} (?:at )?)?{_SYMBOL}")
_IN = re.compile(rf" in {_SYMBOL}")
_FRAME = re.compile(rf"^\s{{1,4}}{_SYMBOL}")
_TAINTED = re.compile(r"\bTainted: ([A-Z][A-Z ]{0,40})")
_TAINTING = re.compile(r"taints kernel|tainting kernel|due to kernel taint")
_ENTERING = re.compile(r"^Call [Tt]race:")
# A panic that only says what the oops before it already said.
_SAME_PANIC = re.compile(r"Fatal exception|panic_on_|softlockup: hung|hung_task: blocked|Hard LOCKUP|RCU Stall|Oops")


@dataclass(slots=True)
class _Open:
    """A splat while its lines still come in."""

    phrase: Phrase
    headline: str
    line: int
    caller_id: str
    symbol: str | None = None
    dumped: bool = False  # its register line was seen
    died: bool = False  # its die line ("Oops: 0000 [#1]") was seen
    closed: bool = False
    panic: bool = False
    in_trace: bool = False
    frames: list[str] = field(default_factory=list)
    excerpt: list[str] = field(default_factory=list)

    def splat(self) -> Splat:
        inside = next((frame for frame in self.frames if frame.endswith("]")), None)
        symbol = self.symbol or inside
        caller = inside if symbol and not symbol.endswith("]") and inside != symbol else None
        return Splat(
            self.phrase.kind, self.headline, symbol, caller, self.panic, self.line, tuple(self.excerpt[:EXCERPT_LINES])
        )


def marker(token: str) -> str:
    """The line to write to /dev/kmsg before the work; only what follows it is judged."""
    return f"lab: marker {token}"


def read(text: str | bytes, *, mark: str = "") -> Events:
    """All events of a kernel log after the line that contains `mark` (the whole log when empty).

    Takes dmesg's format, /dev/kmsg's records and a serial console's lines.
    """
    scanner = Scanner(mark=mark)
    scanner.feed(text if isinstance(text, bytes) else text.encode(errors="replace"))
    scanner.finish()
    return scanner.events()


def stamped(text: str | bytes, *, mark: str = "", limit: int = 1000) -> list[tuple[int, str]]:
    """(ns since boot, message) of the first `limit` lines after the mark, by the kernel's own clock.

    Takes dmesg's lines and those of console.log, which have the lab's own stamp before the kernel's. Lines without one
    are left out, as is all but the first record of a line in which several ran together.
    """
    found: list[tuple[int, str]] = []
    marked = not mark
    for raw in (text if isinstance(text, bytes) else text.encode(errors="replace")).splitlines():
        line = clean(raw[:LINE_BYTES])
        stamp = _SECONDS.search(line, 0, STAMP_CHARS)
        if marked and stamp:
            ns = (int(stamp.group(1)) * 1_000_000 + int(stamp.group(2))) * 1_000
            found.append((ns, next(_records(line[stamp.start() :]))[1][:LINE_CHARS]))
        marked = marked or mark in line
        if len(found) == limit:
            break
    return found


class Scanner:
    """Finds splats in a stream as it comes in, in pieces of any size."""

    def __init__(self, *, mark: str = "") -> None:
        self._mark = mark
        self._marked = not mark
        self._partial = bytearray()
        self._lines = 0
        self._splats: list[_Open] = []
        self._open: list[_Open] = []
        self._cut: dict[str, list[str]] = {}  # caller -> lines since its "cut here"
        self._taints: list[Taint] = []
        self._tainted: set[str] = set()

    @property
    def splats(self) -> list[Splat]:
        """All so far, with everything known of them by now."""
        return [one.splat() for one in self._splats]

    def events(self) -> Events:
        """Everything so far."""
        return Events(tuple(self.splats), tuple(self._taints), self._marked, self._lines)

    def feed(self, data: bytes) -> list[Splat]:
        """Take the next bytes; return the splats whose headline ended in them, as far as they are known."""
        before = len(self._splats)
        *whole, rest = re.split(rb"[\r\n]", data)
        for piece in whole:
            self._append(piece)
            self._line(bytes(self._partial))
            self._partial.clear()
        self._append(rest)
        return [one.splat() for one in self._splats[before:]]

    def finish(self) -> list[Splat]:
        """The stream ended: take the last line although it has no end."""
        new = self.feed(b"\n")
        before = len(self._splats)
        for caller, lines in list(self._cut.items()):
            self._new(Phrase(Kind.DUMP, _CUT), lines[0] if lines else "a splat without a headline", caller)
        return new + [one.splat() for one in self._splats[before:]]

    def _append(self, piece: bytes) -> None:
        self._partial += piece[: max(0, LINE_BYTES - len(self._partial))]

    def _line(self, raw: bytes) -> None:
        self._lines += 1
        if not raw:
            return
        text = clean(raw[:LINE_BYTES])
        if not self._marked:
            self._marked = self._mark in text
            return
        for caller, message in _records(text):
            if message:
                self._record(caller, message[:LINE_CHARS])

    def _record(self, caller: str, message: str) -> None:
        self._taint(message)
        mine = [one for one in self._open if one.caller_id == caller]
        if _CUT in message:
            self._cut[caller] = []
            return
        phrase = find(message)
        if phrase is not None:
            self._headline(phrase, message, caller, mine)
        elif caller in self._cut:
            lines = self._cut[caller]
            lines.append(message.strip())
            if len(lines) > WARN_MESSAGE_LINES:
                lines.pop(0)
        self._detail(message, caller, mine)

    def _headline(self, phrase: Phrase, message: str, caller: str, mine: list[_Open]) -> None:
        last = mine[-1] if mine else None
        if phrase.kind is Kind.PANIC and self._splats and (last or _SAME_PANIC.search(message)):
            (last or self._splats[-1]).panic = True
            return
        if phrase.die:
            victim = next((one for one in reversed(mine) if one.phrase.dies and not one.died), None)
            if victim:
                victim.died = True
                return
        if last and last.phrase.absorbs and not last.dumped and last.phrase.kind is not phrase.kind:
            # The message of a WARN or BUG came first: it stays the headline, the rest is the usual.
            last.phrase = Phrase(max(last.phrase.kind, phrase.kind, key=lambda kind: kind.rank), "", dies=phrase.dies)
            last.symbol = last.symbol or _inline(message)
            self._cut.pop(caller, None)
            return
        text = message.strip()
        said = self._cut.pop(caller, [])
        if said and phrase.kind is Kind.WARNING:
            text = f"{said[0]}: {text}"
        self._new(phrase, text, caller, symbol=_inline(message), died=phrase.die)

    def _new(self, phrase: Phrase, text: str, caller: str, *, symbol: str | None = None, died: bool = False) -> None:
        if len(self._splats) >= MAX_SPLATS:
            return
        one = _Open(phrase, text[:LINE_CHARS], self._lines, caller, symbol=symbol, died=died)
        one.panic = phrase.kind is Kind.PANIC
        self._splats.append(one)
        self._open = [*self._open, one][-OPEN_SPLATS:]

    def _detail(self, message: str, caller: str, mine: list[_Open]) -> None:
        """Give a line to the open splats of its caller: excerpt, registers, call trace, end."""
        if place := _PC.match(message):
            self._registers(place.group(1), message, caller, mine)
        mine = [one for one in self._open if one.caller_id == caller]
        for one in mine:
            if len(one.excerpt) < EXCERPT_LINES:
                one.excerpt.append(message)
            if _ENTERING.match(message):
                one.in_trace = True
            elif one.in_trace and len(mine) == 1 and len(one.frames) < FRAMES and (frame := _FRAME.match(message)):
                # With two splats open nobody can say whose frame it is: claim nothing.
                one.frames.append(frame.group(1))
        if _END in message and mine:
            done = next((one for one in mine if one.dumped), mine[0])
            done.closed = True
            self._open.remove(done)

    def _registers(self, symbol: str, message: str, caller: str, mine: list[_Open]) -> None:
        waiting = [one for one in mine if not one.dumped]
        owner = next((one for one in waiting if one.symbol == symbol), None)
        owner = owner or next((one for one in waiting if one.symbol is None), None)
        if owner:
            owner.symbol, owner.dumped = symbol, True
        elif not self._splats:
            self._new(Phrase(Kind.DUMP, ""), message.strip(), caller, symbol=symbol)

    def _taint(self, message: str) -> None:
        flags = ""
        if found := _TAINTED.search(message):
            flags = found.group(1).replace(" ", "").removeprefix("G")
        elif _TAINTING.search(message):
            flags = _flag(message)
        if flags and flags not in self._tainted and len(self._taints) < MAX_TAINTS:
            self._tainted.add(flags)
            self._taints.append(Taint(flags, message.strip()))


def _flag(message: str) -> str:
    if "out-of-tree module" in message:
        return "O"
    if "module verification failed" in message:
        return "E"
    if "TAINT_LIVEPATCH" in message:
        return "K"
    return "P" if "module license" in message else "?"


def _inline(message: str) -> str | None:
    found = _INLINE.search(message) or _IN.search(message)
    return found.group(1) if found else None


def _records(text: str) -> Iterator[tuple[str, str]]:
    """(caller, message) of each record in a line; a console line may hold several that ran together."""
    if kmsg := _KMSG.match(text):
        yield kmsg.group(1) or "", text[kmsg.end() :]
        return
    caller, start = "", 0
    for stamp in _STAMP.finditer(text):
        if stamp.start() > start:
            yield caller, text[start : stamp.start()]
        caller, start = stamp.group(1) or "", stamp.end()
    yield caller, text[start:]
