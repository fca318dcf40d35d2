// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: invalidate_no_retry.
 *
 * Purpose: a call that was cut off fails instead of being made again. Oracle 7 (as many made again as cut off) must
 * notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#define HS_MAY_RETRY false
#include "../mechanisms/invalidate/invalidate.c"
#include "mechanism.h"

HS_MUTANT_OF(invalidate);
