// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: adaptive_half.
 *
 * Purpose: a group changes half: a round's calls of the slot's mate go to the newest edition, whichever answers the others.
 * Oracle 7 (calls that belong together are answered by one edition) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#define HS_ADAPT_ROUND(round, slot) ((slot)->entry ? hs_slot_newest(slot) : (round)->ref)
#include "../mechanisms/adaptive/adaptive.c"
#include "mechanism.h"

HS_MUTANT_OF(adaptive);
