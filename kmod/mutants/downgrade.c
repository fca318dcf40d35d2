// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: downgrade.
 *
 * Purpose: the version policy finds no version old, so an older edition replaces a newer one. Oracle 6 (what must be
 * refused is refused) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

#define hs_version_older(version, newest) false
#include "../mechanisms/refcount.c"
#include "mechanism.h"

HS_MUTANT_OF(refcount);
