# SPDX-License-Identifier: GPL-2.0-or-later
"""A command on a terminal of its own, as a person sees it."""

from __future__ import annotations

import os
import pty
import select
import subprocess

from lab.errors import LabError

PROMPT = b"# "
WAIT_S = 60.0


def until_prompt(argv: list[str]) -> None:
    """Run a command until its shell asks for input, and end it there; LabError when it asks for none."""
    master, slave = pty.openpty()
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as process:
        os.close(slave)
        said = b""
        try:
            while PROMPT not in said:
                if not select.select([master], [], [], WAIT_S)[0]:
                    raise LabError(f"no prompt after {WAIT_S:.0f} s: {said!r}")
                said += os.read(master, 4096)
        except OSError as e:
            raise LabError(f"no prompt: {said!r}") from e
        finally:
            process.kill()
            os.close(master)
