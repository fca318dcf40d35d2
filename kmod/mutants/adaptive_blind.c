// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: adaptive_blind.
 *
 * Purpose: the swapper does not wait for references. Who sleeps in the edition is found by the search of all stacks, which
 * holds its unloading up: oracle 7 (nobody is in old text once the references are gone) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#define HS_ADAPT_HELD(ref) (false && is_held(ref))
#include "../mechanisms/adaptive/adaptive.c"
#include "mechanism.h"

HS_MUTANT_OF(adaptive);
