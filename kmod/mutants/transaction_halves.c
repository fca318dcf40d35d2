// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: transaction_halves.
 *
 * Purpose: a bottom half's calls go to the newest edition, whichever its top half began with. Oracle 7 (what the mechanism
 * promises) must notice rounds that two editions answered.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

#define HS_ROUND_REF(round) ((round)->who ? NULL : (round)->ref)
#include "../mechanisms/transaction.c"
#include "mechanism.h"

HS_MUTANT_OF(transaction);
