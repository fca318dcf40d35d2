// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: one translation unit.
 *
 * Purpose: put the core's files and the mechanisms together, of which none needs another. Under emulation the kernel's
 * headers cost the compiler ten times what this code does, so they are read once.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "ref.c"
#include "restart.c"
#include "table.c"
#include "object.c"
#include "show.c"
#include "source.c"
#include "stall.c"
#include "race.c"
#include "hook.c"
#include "stack.c"
#include "../mechanisms/refcount.c"
#include "../mechanisms/reload.c"
#include "../mechanisms/invalidate/invalidate.c"
#include "../mechanisms/adaptive/adaptive.c"
#include "../mechanisms/transaction.c"
#include "../peers/livepatch.c"
#include "main.c"

/* For editions. */
EXPORT_SYMBOL_GPL(hs_site_call);

/* For mutants of mechanisms, which are modules of their own, and for demonstrations. */
EXPORT_SYMBOL_GPL(hs_ref_revoke);
EXPORT_SYMBOL_GPL(hs_slot_drain);
EXPORT_SYMBOL_GPL(hs_alloc_percpu);
EXPORT_SYMBOL_GPL(hs_free_percpu);
EXPORT_SYMBOL_GPL(hs_objects_transform);
EXPORT_SYMBOL_GPL(hs_objects_show);
EXPORT_SYMBOL_GPL(hs_guard_call);
EXPORT_SYMBOL_GPL(hs_guard_landing);
EXPORT_SYMBOL_GPL(hs_guard_return);
