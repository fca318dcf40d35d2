/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hotswap - the contract for authors of editions.
 *
 * An edition is one version of what stands behind a slot, in a module of its own. It says who it is and registers as
 * the last act of its module_init(); from that moment new references may run in it, on any CPU and in any context,
 * before module_init() has returned. It unregisters as the first act of module_exit().
 *
 * An edition counts nothing and pins nothing: a reference is taken before its code is entered and dropped after its
 * code is left, both outside its text: a count that falls before a function's last instruction is no protection.
 *
 * Usage: see editions/edition.h and the four editions beside it.
 */
#ifndef HOTSWAP_H
#define HOTSWAP_H

#include <linux/module.h>
#include <linux/types.h>
#include <uapi/hotswap.h>

struct hs_ref;

/**
 * struct hs_layout - the shape of the state that a slot hands from edition to edition
 * @size:	bytes
 * @hash:	hs_hash() of a text that names the fields; editions equal in hash and size share the state as it is
 */
struct hs_layout {
	u32 size;
	u64 hash;
};

/**
 * struct hs_edition - what an edition registers
 * @slot:	name of the slot it wants to stand behind
 * @name:	its own name
 * @version:	must be higher than any version this slot has had; not 0
 * @identity:	which algorithm it is, as reported to callers
 * @interface:	hs_hash() of the interface; all editions of a slot have the same
 * @layout:	shape of the slot's state
 * @owner:	THIS_MODULE
 * @call:	does one call. Context: any; sleeps only if call->sleep_us asks for it. Return: 0, or a negative
 *		errno that the caller gets. Must not hold a lock when it returns.
 * @state_init:	fills the zeroed state when this is the slot's first edition. Context: process, may sleep. May be NULL.
 * @table:	look-up table that callers read under a reference, or NULL
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
	struct module *owner;
	int (*call)(const struct hs_edition *self, struct hs_call *call);
	void (*state_init)(void *state);
	const u64 *table;
	void *state;
	struct hs_ref *ref;
};

/* FNV-1a of a text: interfaces and layouts are compared by it. */
static inline u64 hs_hash(const char *text)
{
	u64 hash = 0xcbf29ce484222325ULL;

	while (*text)
		hash = (hash ^ (u8)*text++) * 0x100000001b3ULL;
	return hash;
}

int hs_edition_register(struct hs_edition *edition);
void hs_edition_unregister(struct hs_edition *edition);

void *hs_zalloc(size_t size);
void hs_free(void *memory);

#endif /* HOTSWAP_H */
