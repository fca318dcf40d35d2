# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual-hardware test lab for changing code inside a running kernel."""
