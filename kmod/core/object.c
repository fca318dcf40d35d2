// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: the objects of a slot's state, and bringing them from one layout to the next.
 *
 * Purpose: each object knows the number of the layout it has. A transformer takes one object one layout further, exactly
 * once: under one lock, and only if the object still has the layout before. Who calls it first decides: a mechanism for
 * all objects at the switch, or an edition for the object that it is about to read.
 */

#include <linux/spinlock.h>
#include "core.h"

/* Guards the layout of every object. Taken in any context but NMI. */
static DEFINE_RAW_SPINLOCK(object_lock);
static unsigned long objects_transformed, objects_touched;

static notrace void object_transform(const struct hs_edition *edition, struct hs_object *object, bool touched)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&object_lock, flags);
	if (object->layout + 1 == edition->layout.number) {
		edition->transform(object);
		objects_transformed++;
		objects_touched += touched;
		smp_store_release(&object->layout, edition->layout.number); /* pairs with the edition's look at it */
	}
	raw_spin_unlock_irqrestore(&object_lock, flags);
}

/**
 * hs_object_touch - bring an object to the edition's layout before its first use
 * @self: the edition
 * @object: one of its slot's
 *
 * Context: any but NMI.
 */
notrace void hs_object_touch(const struct hs_edition *self, struct hs_object *object)
{
	if (self->transform)
		object_transform(self, object, true);
}
EXPORT_SYMBOL_GPL(hs_object_touch);

/* Bring every object to the layout of @ref's edition, those that have it already excepted. Context: any but NMI. */
void hs_objects_transform(const struct hs_ref *ref)
{
	const struct hs_edition *edition = ref->edition;
	u32 i;

	if (!edition->transform)
		return;
	for (i = 0; i < edition->layout.objects; i++)
		object_transform(edition, edition->state + i * edition->layout.size, false);
}

/*
 * As members of a JSON object: how many objects there are, how many have not the newest layout yet, how many layouts they
 * have come through all together, and how often a transformer ran. Context: process, hs_lock held.
 */
void hs_objects_show(struct seq_file *seq)
{
	unsigned long objects = 0, behind = 0, steps = 0;
	const struct hs_object *object;
	const struct hs_slot *slot;
	u32 i;

	list_for_each_entry(slot, &slots, node) {
		for (i = 0; slot->state && i < slot->layout.objects; i++) {
			object = slot->state + i * slot->layout.size;
			objects++;
			behind += READ_ONCE(object->layout) != slot->layout.number;
			steps += READ_ONCE(object->layout);
		}
	}
	seq_printf(seq, "\"objects\":%lu,\"behind\":%lu,\"steps\":%lu,\"transformed\":%lu,\"touched\":%lu", objects,
		   behind, steps, READ_ONCE(objects_transformed), READ_ONCE(objects_touched));
}
