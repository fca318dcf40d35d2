/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hotswap - the contract for authors of editions.
 *
 * An edition is one version of what stands behind a slot, in a module of its own. It says who it is and registers as
 * the last act of its module_init(); from that moment new references may run in it, on any CPU and in any context,
 * before module_init() has returned. It unregisters as the first act of module_exit(). One that is @hold only stands by
 * until somebody publishes it: then the module loader, which interrupts every CPU on some architectures, is done.
 *
 * An edition counts nothing and pins nothing: a reference is taken before its code is entered and dropped after its
 * code is left, both outside its text: a count that falls before a function's last instruction is no protection.
 *
 * Usage: see hs_edition.h, which does all of this but the function itself, and the four files in editions/.
 */
#ifndef HOTSWAP_H
#define HOTSWAP_H

#include <linux/compiler.h>
#include <linux/module.h>
#include <linux/types.h>
#include <uapi/hotswap.h>
#include "hs_algorithms.h"

struct hs_ref;
struct hs_slot;

/* struct hs_object - what each object of a slot's state begins with: the number of the layout that it has now */
struct hs_object {
	u32 layout;
	u32 pad;
};

/**
 * struct hs_layout - the shape of the state that a slot hands from edition to edition
 * @size:	bytes of an object
 * @objects:	how many there are; 0 for an edition without state
 * @number:	how many layouts came before this one
 * @hash:	hs_hash() of a text that names the fields; editions that agree in all share the state as it is
 */
struct hs_layout {
	u32 size;
	u32 objects;
	u32 number;
	u64 hash;
};

static inline bool hs_layout_same(const struct hs_layout *one, const struct hs_layout *other)
{
	return one->size == other->size && one->objects == other->objects && one->number == other->number &&
	       one->hash == other->hash;
}

/*
 * What may become of a call that is still in the edition when the edition is replaced. Mechanisms that wait for every
 * call treat all alike.
 *
 * HS_DRAIN	nothing: the call is waited for
 * HS_RESTART	it may be cut off at any instruction and made again: it holds no lock and disables no soft interrupts, and
 *		what it has done so far does no harm when done twice. Preemption, interrupts and RCU read sections are
 *		put back as they were at the call.
 * HS_COMMIT	the same until hs_commit() says true; after that it does its work, does not sleep, and returns 0. When
 *		hs_commit() says false it returns HS_AGAIN at once. It asks exactly once in each call that returns 0.
 * HS_PERCOLATE	as HS_RESTART, but the caller sees -ERESTART and has a recovery routine of its own
 */
enum hs_restart {
	HS_DRAIN,
	HS_RESTART,
	HS_COMMIT,
	HS_PERCOLATE,
};

/**
 * struct hs_policy - what an access-control edition decides by: a data resource of the edition
 * @forbids:	the list is of what is forbidden, and what is not on it is allowed; else the other way round
 * @label:	labels of files: hs_hash() of their names
 */
struct hs_policy {
	bool forbids;
	u64 label[HS_POLICY_FILES];
};

/* A call that is to be made again. Not an errno: no caller ever sees it. */
#define HS_AGAIN (-4096)

/**
 * struct hs_edition - what an edition registers
 * @slot:	name of the slot it wants to stand behind
 * @name:	its own name
 * @version:	must be higher than any version this slot has had; not 0
 * @identity:	which algorithm it is, as reported to callers
 * @interface:	hs_hash() of the interface; all editions of a slot have the same
 * @layout:	shape of the slot's state
 * @from_hash:	hash of the layout, one number lower, that @transform takes
 * @transform:	bring one object from that layout to this one, in place. Context: any, a lock is held; it may be called
 *		with every CPU stopped. NULL for an edition that knows only its own layout.
 * @restart:	what may become of calls in it when it is replaced
 * @hold:	not to be published at registration but by HS_CTL_PUBLISH
 * @owner:	THIS_MODULE
 * @call:	does one call. Context: any; sleeps only if the call asks for it. Return: 0, or a negative
 *		errno that the caller gets. Must not hold a lock when it returns.
 * @mate_call:	does one call of the slot's mate, a second entry that is always swapped together with the slot; may be NULL
 * @state_init:	fills the zeroed state when this is the slot's first edition. Context: process, may sleep. May be NULL.
 * @site:	hs_site, from HS_SITE(); NULL for an edition that no livepatch can bring
 * @table:	look-up table that callers read under a reference, or NULL
 * @policy:	what @call decides HS_OP_OPEN by, read by the edition only; swapped with it
 * @state:	set by the core before @call can run: the slot's state
 * @ref:	the core's
 */
struct hs_edition {
	const char *slot;
	const char *name;
	u32 version;
	u32 identity;
	u64 interface;
	struct hs_layout layout;
	u64 from_hash;
	void (*transform)(struct hs_object *object);
	enum hs_restart restart;
	bool hold;
	struct module *owner;
	int (*call)(const struct hs_edition *self, struct hs_call *call);
	int (*mate_call)(const struct hs_edition *self, struct hs_call *call);
	void (*state_init)(void *state);
	int (*site)(struct hs_slot *slot, struct hs_call *call);
	const u64 *table;
	const struct hs_policy *policy;
	void *state;
	struct hs_ref *ref;
};

int hs_edition_register(struct hs_edition *edition);
void hs_edition_unregister(struct hs_edition *edition);

bool hs_commit(const struct hs_edition *self);
void hs_sleep(const struct hs_edition *self, u32 us);
int hs_nest(const struct hs_edition *self, struct hs_call *call);
void hs_object_touch(const struct hs_edition *self, struct hs_object *object);

void *hs_zalloc(size_t size);
void hs_free(void *memory);

int hs_site_call(const struct hs_edition *self, struct hs_slot *slot, struct hs_call *call);

/**
 * HS_SITE - what a livepatch puts in the place of the function that calls arrive at
 * @_edition: the module's struct hs_edition, not yet defined
 *
 * Defines hs_site(), for the edition's @site. Livepatch looks for that function on the stacks of tasks, so it must stay
 * there while the edition runs: never a tail call, hence the barrier. A module with "livepatch" in .modinfo taints the
 * kernel, and is refused by one without livepatch. So it says "Livepatch", which nobody knows, and hs-ctl changes that
 * letter in memory where the mechanism is livepatch: the same file for every mechanism.
 */
#define HS_SITE(_edition)							\
static struct hs_edition _edition;						\
static notrace noinline int hs_site(struct hs_slot *slot, struct hs_call *call)	\
{										\
	int err = hs_site_call(&(_edition), slot, call);			\
										\
	barrier();								\
	return err;								\
}										\
MODULE_INFO(Livepatch, "Y")

#endif /* HOTSWAP_H */
