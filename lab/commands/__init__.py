# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands, grouped: run, show (list, report), house (image, gc, doctor)."""
