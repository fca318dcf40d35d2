// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: transaction_no_wait.
 *
 * Purpose: the layout of the state changes under transactions that are open. Their old code reads new data: oracle 2 (every
 * result is its edition's) must notice. Every update transforms all objects at once: one left to its first touch is still
 * what the old code knows, as long as no new code has come by, and the transactions that meet new data would be few.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

#define HS_QUIESCENT(ref) true
#define HS_FIRST_TOUCH 0
#include "../mechanisms/transaction.c"
#include "mechanism.h"

HS_MUTANT_OF(transaction);
