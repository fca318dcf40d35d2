# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every test."""

import signal

# Tests interrupt what they start. A shell has its background jobs ignore that, and all they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
