// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: redirecting functions that were never written to be swapped.
 *
 * Purpose: ftrace calls back at a function's entry, before its first instruction, and lets the callback say where to go
 * on (IPMODIFY; each function has one such owner). So a call arrives at another function with its arguments as they
 * were, in any context, and returns to its own caller.
 *
 * A hook is taken away by RCU-tasks grace periods, a quarter of a second under emulation, so it stays while editions come
 * and go behind it. Removal returns when no callback runs; tasks may still be in @to, which is its owner's to know.
 */

#include <linux/kprobes.h>
#include "hook.h"

/**
 * hs_find_symbol - where a function of the kernel or of a module is
 * @name: its name, exported or not, static or not
 *
 * By a kprobe that is never armed.
 *
 * Context: process, may sleep. Return: its address, 0 if there is none that may be probed.
 */
unsigned long hs_find_symbol(const char *name)
{
	struct kprobe probe = { .symbol_name = name, .flags = KPROBE_FLAG_DISABLED };

	if (register_kprobe(&probe))
		return 0;
	unregister_kprobe(&probe);
#ifdef CONFIG_X86_64
	/* It may point behind an ENDBR; functions are aligned. */
	return (unsigned long)probe.addr - (IS_ALIGNED((unsigned long)probe.addr - 4, 16) ? 4 : 0);
#else
	return (unsigned long)probe.addr;
#endif
}
EXPORT_SYMBOL_GPL(hs_find_symbol);

static notrace void redirect(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	struct hs_hook *hook = container_of(ops, struct hs_hook, ops);

	if (hook->owner && within_module(parent, hook->owner))
		return;
#ifdef CONFIG_DYNAMIC_FTRACE_WITH_REGS
	instruction_pointer_set(ftrace_get_regs(fregs), (unsigned long)hook->to);
#else
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)hook->to);
#endif
}

/**
 * hs_hook_install - redirect a function
 * @hook: function, to and owner are set; stays valid until it is removed
 *
 * Context: process, may sleep. Return: 0; -ENOENT if there is no such function; -EBUSY if somebody else redirects it; or
 * what ftrace says.
 */
int hs_hook_install(struct hs_hook *hook)
{
	int err;

	hook->at = hs_find_symbol(hook->function);
	if (!hook->at)
		return -ENOENT;
	hook->ops.func = redirect;
	hook->ops.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT;
#ifdef CONFIG_DYNAMIC_FTRACE_WITH_REGS
	hook->ops.flags |= FTRACE_OPS_FL_SAVE_REGS;
#endif
	err = ftrace_set_filter_ip(&hook->ops, hook->at, 0, 1);
	if (!err)
		err = register_ftrace_function(&hook->ops);
	if (err) {
		ftrace_free_filter(&hook->ops);
		hook->ops = (struct ftrace_ops) { };	/* kernels up to 6.12 leave the freed filter in it */
		pr_err("cannot redirect %s: error %d\n", hook->function, err);
	}
	return err;
}
EXPORT_SYMBOL_GPL(hs_hook_install);

/**
 * hs_hook_remove - give a function back
 * @hook: what was installed
 *
 * Context: process, may sleep.
 */
void hs_hook_remove(struct hs_hook *hook)
{
	/* If ftrace has given up on itself, the hook stays, and so must its code. */
	if (WARN_ON(unregister_ftrace_function(&hook->ops))) {
		__module_get(THIS_MODULE);
		if (hook->owner)
			__module_get(hook->owner);
		return;
	}
	ftrace_free_filter(&hook->ops);
	hook->ops = (struct ftrace_ops) { };
}
EXPORT_SYMBOL_GPL(hs_hook_remove);
