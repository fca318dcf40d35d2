/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Redirecting functions that were never written to be swapped.
 *
 * Usage:
 *	static struct hs_hook hook = { .function = "security_file_open", .to = mine, .owner = THIS_MODULE };
 *	hs_hook_install(&hook); ... hs_hook_remove(&hook);
 * and mine() may call the original, but never as a tail call: a call whose return address lies in @owner passes the hook by.
 * On x86 a pointer to a kernel function may not be called where IBT seals it: use a static call (static_call_update() to
 * hook.at).
 */
#ifndef HS_HOOK_H
#define HS_HOOK_H

#include <linux/ftrace.h>
#include <linux/module.h>

/**
 * struct hs_hook - a function, and what runs in its place
 * @function:	its name; a kernel function or one of a loaded module, static ones included. Must be traceable.
 *		A static one whose callers all ignore a result or an argument may be called otherwise: f.isra.0
 * @to:		a function of the same signature
 * @owner:	calls from this module reach the original; NULL: none do
 * @at:		where the function is, once installed
 * @ops:	ftrace's
 */
struct hs_hook {
	const char *function;
	void *to;
	struct module *owner;
	unsigned long at;
	struct ftrace_ops ops;
};

unsigned long hs_find_symbol(const char *name);
int hs_hook_install(struct hs_hook *hook);
void hs_hook_remove(struct hs_hook *hook);

#endif /* HS_HOOK_H */
