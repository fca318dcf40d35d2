// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: transaction_no_wait.
 *
 * Purpose: the layout of the state changes under transactions that are open. Their old code reads new data: oracle 2 (every
 * result is its edition's) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

#define HS_QUIESCENT(ref) true
#include "../mechanisms/transaction.c"
#include "mechanism.h"

HS_MUTANT_OF(transaction);
