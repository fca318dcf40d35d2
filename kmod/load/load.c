// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap load: the module that calls come from.
 *
 * Purpose: bring up the sources of calls that `from` names, each in a file of its own. They are one translation unit
 * because under emulation the kernel's headers cost the compiler ten times what this code does.
 *
 * Usage: insmod hs_load.ko from=syscall,edu,hrtimer
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/string.h>
#include "dev.c"
#include "edu.c"
#include "exception.c"
#include "hrtimer.c"
#include "policy.c"

static char *from = "syscall";
module_param(from, charp, 0444);
MODULE_PARM_DESC(from, "sources of calls, separated by commas: syscall, edu, hrtimer, exception, policy");

static const struct {
	const char *name;
	int (*init)(void);
	void (*exit)(void);
} loads[] = {
	{ "syscall", dev_init, dev_exit },
	{ "edu", edu_init, edu_exit },
	{ "hrtimer", timer_init, timer_exit },
	{ "exception", fault_init, fault_exit },
	{ "policy", policy_init, policy_exit },
};

/* Which of loads[] are started, as bits. */
static unsigned long started;

static bool is_wanted(const char *name)
{
	const size_t length = strlen(name);
	const char *word = from;

	for (; word; word = strchr(word, ',') ? strchr(word, ',') + 1 : NULL)
		if (!strncmp(word, name, length) && (!word[length] || word[length] == ','))
			return true;
	return false;
}

static void load_exit(void)
{
	int i;

	for (i = ARRAY_SIZE(loads) - 1; i >= 0; i--)
		if (started & BIT(i))
			loads[i].exit();
}

static int __init load_init(void)
{
	int i, err;

	for (i = 0; i < ARRAY_SIZE(loads); i++) {
		if (!is_wanted(loads[i].name))
			continue;
		err = loads[i].init();
		if (err) {
			load_exit();
			return err;
		}
		started |= BIT(i);
	}
	return started ? 0 : -EINVAL;
}
module_init(load_init);
module_exit(load_exit);

MODULE_DESCRIPTION("hotswap load: system calls, interrupts, page faults and opens that call a slot");
MODULE_LICENSE("GPL");
