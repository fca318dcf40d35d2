// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: livepatch_forced.
 *
 * Purpose: a transition that does not end at once is forced, as an administrator can who does not want to wait.
 * Livepatch then never lets the old module go, since nobody knows who is in it. Oracle 7 (transitions end by
 * themselves) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#define HS_LIVEPATCH_ASK(patch) (livepatch_write(patch, "force", "1"), livepatch_ask_again(patch))
#include "../peers/livepatch.c"
#include "mechanism.h"

HS_MUTANT_OF(livepatch);
