// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: transaction_twice.
 *
 * Purpose: one object goes through the transformer twice. Oracle 2 (every result is its edition's) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

static inline void hs_transform_twice(const struct hs_ref *ref)
{
	struct hs_object *first = ref->edition->state;

	hs_objects_transform(ref);
	if (!ref->edition->transform || first->layout != ref->edition->layout.number)
		return;
	first->layout--;
	hs_objects_transform(ref);
}

#define HS_TRANSFORM(ref) hs_transform_twice(ref)
#include "../mechanisms/transaction.c"
#include "mechanism.h"

HS_MUTANT_OF(transaction);
