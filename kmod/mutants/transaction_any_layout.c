// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: transaction_any_layout.
 *
 * Purpose: an edition is let in whatever layout of the state it was written for. Oracle 6 (what must be refused) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

#define HS_ANY_LAYOUT true
#include "../mechanisms/transaction.c"
#include "mechanism.h"

HS_MUTANT_OF(transaction);
