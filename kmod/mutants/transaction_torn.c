// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: transaction_torn.
 *
 * Purpose: a task's calls in a transaction go to the newest edition, whichever the transaction began with. Oracle 7 (what the
 * mechanism promises) must notice rounds that two editions answered.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

#define HS_ROUND_REF(round) ((round)->who ? (round)->ref : NULL)
#include "../mechanisms/transaction.c"
#include "mechanism.h"

HS_MUTANT_OF(transaction);
