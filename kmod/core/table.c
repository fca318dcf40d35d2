// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: the module table.
 *
 * Purpose: slots, the editions that registered for them, and the one swap at a time that each slot allows.
 *
 * A swap has two halves. Registration (the new module's init) asks the mechanism's policy, sets up the edition's
 * counter and publishes it: from then on it answers every new reference. The second half is the swapper's: hs_slot_drain() waits
 * until the old edition has no references and lets go of its module, which the swapper then unloads. In between the
 * slot refuses other editions.
 */

#include <linux/mutex.h>
#include <linux/ktime.h>
#include "core.h"

static char *mechanism = "refcount";
module_param(mechanism, charp, 0444);
MODULE_PARM_DESC(mechanism, "how editions of new slots are swapped");

/* Guards slots, mechanisms, every record's state and every write of slot->ref. Never taken by a dispatch. */
static DEFINE_MUTEX(hs_lock);
static LIST_HEAD(slots);
static LIST_HEAD(mechanisms);

static struct hs_slot *find_slot(const char *name)
{
	struct hs_slot *slot;

	lockdep_assert_held(&hs_lock);
	list_for_each_entry(slot, &slots, node)
		if (!strcmp(slot->name, name))
			return slot;
	return NULL;
}

static struct hs_mechanism *find_mechanism(const char *name)
{
	struct hs_mechanism *mech;

	lockdep_assert_held(&hs_lock);
	list_for_each_entry(mech, &mechanisms, node)
		if (!strcmp(mech->name, name))
			return mech;
	return NULL;
}

/**
 * hs_mechanism_register - make a mechanism known, before others of its name
 * @mech: stays valid until it is unregistered
 *
 * Context: process, may sleep.
 */
void hs_mechanism_register(struct hs_mechanism *mech)
{
	mutex_lock(&hs_lock);
	list_add(&mech->node, &mechanisms);
	mutex_unlock(&hs_lock);
}
EXPORT_SYMBOL_GPL(hs_mechanism_register);

/**
 * hs_mechanism_unregister - forget a mechanism
 * @mech: no slot uses it: each slot holds its module
 *
 * Context: process, may sleep.
 */
void hs_mechanism_unregister(struct hs_mechanism *mech)
{
	mutex_lock(&hs_lock);
	list_del(&mech->node);
	mutex_unlock(&hs_lock);
}
EXPORT_SYMBOL_GPL(hs_mechanism_unregister);

/* One more slot uses @mech. Return: 0, or why it can not be used here. */
static int hold_mechanism(struct hs_mechanism *mech)
{
	int err;

	lockdep_assert_held(&hs_lock);
	if (!try_module_get(mech->owner))
		return -ENODEV;
	err = !mech->slots && mech->init ? mech->init() : 0;
	if (err)
		module_put(mech->owner);
	else
		mech->slots++;
	return err;
}

static void drop_mechanism(struct hs_mechanism *mech)
{
	lockdep_assert_held(&hs_lock);
	if (!--mech->slots && mech->exit)
		mech->exit();
	module_put(mech->owner);
}

static void free_slot(struct hs_slot *slot)
{
	struct hs_ref *ref, *next;

	list_for_each_entry_safe(ref, next, &slot->refs, node)
		hs_ref_free(ref);
	if (slot->mechanism)
		drop_mechanism(slot->mechanism);
	hs_free_percpu(slot->empty);
	hs_free(slot->state);
	hs_free(slot->mate);
	hs_free(slot);
}

static struct hs_slot *new_slot(const char *name)
{
	struct hs_mechanism *mech = find_mechanism(mechanism);
	struct hs_slot *slot = mech ? hs_zalloc(sizeof(*slot)) : NULL;
	int err;

	if (!slot)
		return ERR_PTR(mech ? -ENOMEM : -ENOENT);
	INIT_LIST_HEAD(&slot->refs);
	slot->empty = hs_alloc_percpu(sizeof(long));
	slot->mate = hs_zalloc(sizeof(*slot->mate));
	err = slot->empty && slot->mate ? hold_mechanism(mech) : -ENOMEM;
	if (err) {
		free_slot(slot);
		return ERR_PTR(err);
	}
	slot->mechanism = mech;
	slot->call = mech->call;
	strscpy(slot->name, name, sizeof(slot->name));
	*slot->mate = (struct hs_slot) { .mechanism = mech, .call = mech->call, .entry = 1, .empty = slot->empty };
	list_add_tail(&slot->node, &slots);
	return slot;
}

/* Drop one user; the last one frees the slot and its history. */
static void drop_slot(struct hs_slot *slot)
{
	lockdep_assert_held(&hs_lock);
	if (--slot->users)
		return;
	list_del(&slot->node);
	free_slot(slot);
}

/**
 * hs_slot_get - the slot of that name, made if need be
 * @name: its name
 *
 * Context: process, may sleep. Return: the slot, held until hs_slot_put(); or an error pointer: -ENOMEM, -ENOENT without
 * such a mechanism, or why it can not be used on this kernel or hardware.
 */
struct hs_slot *hs_slot_get(const char *name)
{
	struct hs_slot *slot;

	mutex_lock(&hs_lock);
	slot = find_slot(name) ?: new_slot(name);
	if (!IS_ERR(slot))
		slot->users++;
	mutex_unlock(&hs_lock);
	return slot;
}
EXPORT_SYMBOL_GPL(hs_slot_get);

/**
 * hs_slot_put - let go of a slot
 * @slot: none of the caller's references to it is in flight
 *
 * Context: process, may sleep.
 */
void hs_slot_put(struct hs_slot *slot)
{
	mutex_lock(&hs_lock);
	drop_slot(slot);
	mutex_unlock(&hs_lock);
}
EXPORT_SYMBOL_GPL(hs_slot_put);

/* The slot's state is the first edition's; later ones, of the same layout, find it as it is. */
static int attach_state(struct hs_slot *slot, struct hs_edition *edition)
{
	if (!slot->state && edition->layout.objects) {
		slot->state = hs_zalloc(array_size(edition->layout.objects, edition->layout.size));
		if (!slot->state)
			return -ENOMEM;
		if (edition->state_init)
			edition->state_init(slot->state);
	}
	edition->state = slot->state;
	return 0;
}

/* Take @old out of the slot and put @new in; either may be NULL. Return: 0; or why not, and then nothing has changed. */
static int publish(struct hs_slot *slot, struct hs_ref *new, struct hs_ref *old)
{
	u64 start = ktime_get_ns();
	int err;

	lockdep_assert_held(&hs_lock);
	err = slot->mechanism->publish(slot, new, old);
	if (err)
		return err;
	slot->publish_ns = ktime_get_ns() - start;
	if (old) {
		old->state = HS_RETIRED;
		old->left_ns = start;
		slot->retiring = old;
	}
	return 0;
}

/* What was not let in leaves nothing behind; the state is the first edition's. */
static void undo_admission(struct hs_slot *slot, struct hs_edition *edition, struct hs_ref *ref)
{
	if (!slot->newest) {
		hs_free(slot->state);
		slot->state = NULL;
	}
	edition->ref = NULL;
	hs_ref_free(ref);
}

static int admit(struct hs_slot *slot, struct hs_edition *edition)
{
	bool joins = slot->ref && slot->mechanism->order == HS_SIDE_BY_SIDE;
	struct hs_ref *ref;
	int err;

	err = slot->mechanism->admit(slot, edition);
	if (err)
		return err;
	ref = hs_ref_new(slot, edition);
	if (!ref)
		return -ENOMEM;
	edition->ref = ref;
	err = attach_state(slot, edition) ?: slot->mechanism->adopt(slot, ref);
	if (err) {
		undo_admission(slot, edition, ref);
		return err;
	}
	list_add_tail(&ref->node, &slot->refs);
	err = publish(slot, ref, joins ? NULL : slot->ref);
	if (err) {
		list_del(&ref->node);
		slot->mechanism->release(slot, ref);
		undo_admission(slot, edition, ref);
		return err;
	}
	slot->joined = joins;
	slot->users++;
	if (slot->newest)
		slot->swaps++;
	slot->newest = edition->version;
	slot->interface = edition->interface;
	slot->layout = edition->layout;
	return 0;
}

/* It stands by; the mechanism is not asked yet. Return: 0, or -EBUSY if another one does. */
static int hold(struct hs_slot *slot, struct hs_edition *edition)
{
	if (slot->held)
		return -EBUSY;
	slot->held = edition;
	slot->users++;
	return 0;
}

/* It was published, or goes. */
static void unhold(struct hs_slot *slot)
{
	slot->held = NULL;
	drop_slot(slot);
}

/**
 * hs_edition_register - stand behind a slot
 * @edition: stays valid until it is unregistered
 *
 * On success new references run in @edition before this returns, unless it is @hold. On failure nothing has changed.
 *
 * Context: process, may sleep; last act of module_init(). Return: 0; -ENOENT if nobody uses a slot of that name; or
 * what the mechanism's admit says; or -EBUSY if another edition stands by.
 */
int hs_edition_register(struct hs_edition *edition)
{
	struct hs_slot *slot;
	int err = -ENOENT;

	mutex_lock(&hs_lock);
	slot = find_slot(edition->slot);
	if (slot)
		err = edition->hold ? hold(slot, edition) : admit(slot, edition);
	mutex_unlock(&hs_lock);
	return err;
}
EXPORT_SYMBOL_GPL(hs_edition_register);

/*
 * HS_CTL_PUBLISH. Context: process, may sleep. Return: 0, -ENOENT, -ENODEV (none stands by, or it is being unloaded), or
 * what the mechanism's admit says; then it stands by as before.
 */
int hs_slot_publish(const char *name)
{
	struct hs_edition *held;
	struct hs_slot *slot;
	int err = -ENOENT;

	mutex_lock(&hs_lock);
	slot = find_slot(name);
	held = slot ? slot->held : NULL;
	if (slot)
		err = held && try_module_get(held->owner) ? 0 : -ENODEV;
	if (!err) {
		err = admit(slot, held);
		module_put(held->owner);
		if (!err)
			unhold(slot);
	}
	mutex_unlock(&hs_lock);
	return err;
}

/**
 * hs_edition_unregister - the edition's module is being unloaded
 * @edition: what was registered; no reference to it is left when this returns
 *
 * Context: process, may sleep; first act of module_exit().
 */
void hs_edition_unregister(struct hs_edition *edition)
{
	struct hs_slot *slot;
	struct hs_ref *ref;

	mutex_lock(&hs_lock);
	ref = edition->ref;
	slot = ref ? ref->slot : find_slot(edition->slot);
	if (!ref) {
		if (!WARN_ON_ONCE(!slot || slot->held != edition))
			unhold(slot);
		mutex_unlock(&hs_lock);
		return;
	}
	if (ref->state == HS_LIVE && slot->mechanism->leave) {
		slot->mechanism->leave(slot, ref);
		hs_ref_gone(ref);
	}
	WARN_ONCE(ref->state != HS_GONE, "%s unloaded with references", ref->name);
	if (slot->mechanism->forget)
		slot->mechanism->forget(slot, ref);
	drop_slot(slot);
	mutex_unlock(&hs_lock);
}
EXPORT_SYMBOL_GPL(hs_edition_unregister);

/* The oldest or the newest edition that is live, other than @except; NULL if there is none. */
static struct hs_ref *find_live(struct hs_slot *slot, bool newest, const struct hs_ref *except)
{
	struct hs_ref *ref, *found = NULL;

	lockdep_assert_held(&hs_lock);
	list_for_each_entry(ref, &slot->refs, node)
		if (ref->state == HS_LIVE && ref != except && (newest || !found))
			found = ref;
	return found;
}

/* Editions stand side by side: take one of them out. Return: 0, or -ENODEV if nobody would answer instead of it. */
static int take_out(struct hs_slot *slot, u32 retire)
{
	struct hs_ref *leaver = find_live(slot, retire == HS_RETIRE_NEWEST, NULL), *ref;
	unsigned int live = 0;

	list_for_each_entry(ref, &slot->refs, node)
		live += ref->state == HS_LIVE;
	if (retire == HS_RETIRE_NEWEST && live < 2)
		return -ENODEV;
	if (leaver && (retire || live > slot->mechanism->keep))
		return publish(slot, find_live(slot, true, leaver), leaver);
	slot->joined = false;
	return 0;
}

/* A drain goes on where it was left; but the newest can not be taken back while an older one is on its way out. */
static int other_drain(const struct hs_slot *slot, u32 retire)
{
	bool older = slot->ref && slot->retiring->version < slot->ref->version;

	return retire == HS_RETIRE_NEWEST && older ? -EBUSY : 0;
}

/* Begin a drain: the record to wait for, NULL if there is none, or an error. */
static struct hs_ref *begin_drain(struct hs_slot *slot, u32 retire)
{
	int err = 0;

	lockdep_assert_held(&hs_lock);
	if (slot->draining)
		return ERR_PTR(-EBUSY);
	if (slot->mechanism->order == HS_SIDE_BY_SIDE)
		err = slot->retiring ? other_drain(slot, retire) : take_out(slot, retire);
	else if (retire == HS_RETIRE_NEWEST)
		err = -EOPNOTSUPP;
	else if (retire && !slot->retiring && slot->ref && slot->mechanism->drain)
		publish(slot, NULL, slot->ref);
	if (err)
		return ERR_PTR(err);
	slot->draining = slot->retiring;
	return slot->retiring;
}

/*
 * HS_CTL_DRAIN. The slot stays in the table meanwhile: a live or retired edition is one of its users.
 * Context: process, may sleep. Return: 0, -ENOENT, -EBUSY (another drain runs), -EINVAL, -EOPNOTSUPP and -ENODEV (nothing
 * to go back to), or what the mechanism's drain says.
 */
int hs_slot_drain(struct hs_ctl_drain *drain)
{
	struct hs_drained figures = { };
	u64 left_ns, end;
	struct hs_slot *slot;
	struct hs_ref *old;
	int err;

	if (drain->retire > HS_RETIRE_NEWEST)
		return -EINVAL;
	drain->module[0] = 0;
	mutex_lock(&hs_lock);
	slot = find_slot(drain->slot);
	old = slot ? begin_drain(slot, drain->retire) : ERR_PTR(-ENOENT);
	mutex_unlock(&hs_lock);
	if (IS_ERR_OR_NULL(old))
		return PTR_ERR_OR_ZERO(old);
	left_ns = old->left_ns;

	err = slot->mechanism->drain(slot, old, drain->timeout_ms, &figures);

	mutex_lock(&hs_lock);
	slot->draining = false;
	if (!err) {
		strscpy(drain->module, old->module, sizeof(drain->module));
		slot->retiring = NULL;
		slot->joined = false;
		slot->mechanism->release(slot, old);
		hs_ref_gone(old);
	}
	mutex_unlock(&hs_lock);
	end = ktime_get_ns();
	if (!figures.gone_ns)
		figures.gone_ns = end;
	drain->drain_ns = figures.gone_ns - left_ns;
	drain->retire_ns = end - figures.gone_ns;
	drain->flush_ns = figures.flush_ns;
	drain->fault_ns = figures.fault_ns;
	return err;
}
