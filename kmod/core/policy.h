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
 * Who the edition is. Return: 0, or why it may never stand behind this slot:
 * -EINVAL	no version, name or function
 * -EPROTOTYPE	another interface than the slot's
 * -ESTALE	older than an edition that was here
 * -ENOTUNIQ	this version was here already (EEXIST would be the module loader's: newer kernels hide it)
 */
static inline int hs_policy_identity(const struct hs_slot *slot, const struct hs_edition *edition)
{
	if (!edition->version || !edition->name || !edition->call || !edition->owner)
		return -EINVAL;
	if (!slot->newest)
		return 0;
	if (edition->interface != slot->interface)
		return -EPROTOTYPE;
	if (hs_version_older(edition->version, slot->newest))
		return -ESTALE;
	return edition->version == slot->newest ? -ENOTUNIQ : 0;
}

/* Return: 0, or -EBUSY while another swap is in progress, or if the mechanism wants the old edition out first. */
static inline int hs_policy_busy(const struct hs_slot *slot)
{
	bool in_the_way = slot->ref && slot->mechanism->order == HS_OLD_FIRST;

	return slot->retiring || slot->joined || in_the_way ? -EBUSY : 0;
}

/* All of it; -EPROTO for another layout than the slot's state has. */
static inline int hs_policy_check(const struct hs_slot *slot, const struct hs_edition *edition)
{
	int err = hs_policy_identity(slot, edition);

	if (!err && slot->newest && !hs_layout_same(&slot->layout, &edition->layout))
		err = -EPROTO;
	return err ?: hs_policy_busy(slot);
}

#endif /* HS_POLICY_H */
