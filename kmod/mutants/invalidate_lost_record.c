// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: invalidate_lost_record.
 *
 * Purpose: when an interrupt's call ends, the record of the call that it came upon is forgotten with its own. That
 * call's fault is then nobody's, and the kernel must crash: oracle 5 (no splat) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#define HS_BELOW(guard) NULL
#include "../mechanisms/invalidate/invalidate.c"
#include "mechanism.h"

HS_MUTANT_OF(invalidate);
