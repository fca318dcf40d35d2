# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this process was told to stop: said once, and every wait looks at it, in whichever thread.

Ctrl-C reaches the main thread only, while the workers of a run wait for commands, locks, guests and
sockets, some of them for a quarter of an hour.
"""

from __future__ import annotations

import threading

from lab.errors import Interrupted

_called = threading.Event()


def call() -> None:
    """Every wait in this process ends with Interrupted from now on."""
    _called.set()


def check() -> None:
    """Raise Interrupted once this process was told to stop."""
    if _called.is_set():
        raise Interrupted("the run was interrupted")


def over() -> None:
    """Whoever had to stop has stopped."""
    _called.clear()
