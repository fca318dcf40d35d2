/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which editions a slot lets in.
 *
 * Purpose: the version and similarity policy, for mechanisms whose editions only ever get newer. Everything is decided
 * before anything changes, so that a refusal leaves the table as it was. The policy is the mechanism's to choose: one
 * that can go back to an older edition has its own.
 */
#ifndef HS_POLICY_H
#define HS_POLICY_H

#include "core.h"

/*
 * All but the layout of the state. Return: 0, or why this edition may not stand behind this slot:
 * -EINVAL	no version, name or function
 * -EPROTOTYPE	another interface than the slot's
 * -ESTALE	older than an edition that was here
 * -ENOTUNIQ	this version was here already (EEXIST would be the module loader's: newer kernels hide it)
 * -EBUSY	another swap is in progress, or the mechanism wants the old edition out first
 */
static inline int hs_policy_but_layout(const struct hs_slot *slot, const struct hs_edition *edition)
{
	if (!edition->version || !edition->name || !edition->call || !edition->owner)
		return -EINVAL;
	if (!slot->newest)
		return 0;
	if (edition->interface != slot->interface)
		return -EPROTOTYPE;
	if (hs_version_older(edition->version, slot->newest))
		return -ESTALE;
	if (edition->version == slot->newest)
		return -ENOTUNIQ;
	if (slot->retiring || slot->joined || (slot->ref && slot->mechanism->order == HS_OLD_FIRST))
		return -EBUSY;
	return 0;
}

/* The same, and -EPROTO for another layout than the slot's state has. */
static inline int hs_policy_check(const struct hs_slot *slot, const struct hs_edition *edition)
{
	int err = hs_policy_but_layout(slot, edition);

	return err ?: slot->newest && !hs_layout_same(&slot->layout, &edition->layout) ? -EPROTO : 0;
}

#endif /* HS_POLICY_H */
