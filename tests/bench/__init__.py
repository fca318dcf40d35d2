# SPDX-License-Identifier: GPL-2.0-or-later
"""Speed of the lab on this host: medians and ratios of one run. Nothing here asserts; tests do."""
