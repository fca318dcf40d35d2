// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: leak.
 *
 * Purpose: edition crc goes without freeing its table. Oracle 3 (memory is given back) must notice.
 */
#include "../include/hotswap.h"

#define hs_free(memory) ((void)(memory))
#include "../editions/crc.c"
MODULE_INFO(replaces, "hs_ed_crc");
