// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: adaptive_careless.
 *
 * Purpose: under the policy by task every call gets the newest edition. Each decision still becomes a reference, so only
 * the witness of the policy can tell: oracle 7 (the policy is obeyed to the call) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#define HS_ADAPT_TASK(set) 0
#include "../mechanisms/adaptive/adaptive.c"
#include "mechanism.h"

HS_MUTANT_OF(adaptive);
