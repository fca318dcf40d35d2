/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hs-ctl's commands, and what they share.
 */
#ifndef HS_TOOLS_CTL_H
#define HS_TOOLS_CTL_H

#include <stdbool.h>
#include "uapi/hotswap.h"

#define SLOT		"calc"
#define RING		4
#define STATE_FILE	"/sys/kernel/debug/hotswap/state"
#define STATS_FILE	"/sys/kernel/debug/hotswap/stats"

int swap_command(int argc, char **argv);
int refuse_command(int argc, char **argv);

/* The editions in the order of this seed, mutants in place. */
void fill_ring(const char *ring[RING], __u64 seed);
/* What the slot holds; false if there is no such slot. */
bool slot_info(int ctl, struct hs_ctl_info *info);

#endif /* HS_TOOLS_CTL_H */
