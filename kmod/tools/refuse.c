// SPDX-License-Identifier: GPL-2.0-only
/*
 * hs-ctl refuse: what a swapper must not be allowed to do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "common.h"
#include "ctl.h"
#include "modules.h"

/* An edition whose module is not loaded. */
static const char *free_edition(const struct swapper *swapper)
{
	for (unsigned int i = 0; i < swapper->ring.length; i++)
		if (!is_loaded(swapper->ring.module[i]))
			return swapper->ring.module[i];
	die("every edition is loaded");
}

/* The table and the modules as text: what a refusal must leave as it was. */
static char *read_state(void)
{
	char names[MODULES_MAX][NAME_MAX_LEN], *table = read_file(STATE_FILE), *state;
	size_t found = loaded_modules(names), used;

	if (!table)
		die(STATE_FILE ": %s", strerror(errno));
	used = strlen(table);
	state = realloc(table, used + found * (NAME_MAX_LEN + 1) + 1);
	if (!state)
		die("no memory");
	for (size_t i = 0; i < found; i++)
		used += sprintf(state + used, "%s\n", names[i]);
	return state;
}

static const struct refusal {
	const char *name;
	int expected;
	int version;		/* relative to the live one */
	int layout;		/* the same */
	const char *more;	/* module parameters */
} refusals[] = {
	{ "older", ESTALE, -1, 0, "" },
	{ "duplicate", ENOTUNIQ, 0, 0, "" },
	{ "dissimilar", EPROTOTYPE, 1, 0, "interface=other" },
	{ "layout", EPROTO, 1, 0, "layout=other" },
	{ "no-transformer", EPROTO, 1, 2, "" },
	{ "other-transformer", EPROTO, 1, 1, "layout=other" },
	{ "second-swapper", EBUSY, 1, 0, "" },
};

/* One attempt that must be refused; if it is not, the swap that began is brought to its end. */
static void try_refusal(struct swapper *swapper, const struct refusal *refusal, const char *module,
			unsigned int version, unsigned int layout, bool first)
{
	char *before = read_state(), *after;
	struct hs_ctl_drain drain;
	__u64 unused_ns;
	unsigned int unused;
	const char *step;
	int err;

	err = insert_version(module, version, layout + refusal->layout, refusal->more);
	after = read_state();
	printf("%s{\"case\":\"%s\",\"expected\":\"%s\",\"got\":\"%s\",\"refused\":%s,\"same\":%s}", first ? "" : ",",
	       refusal->name, errno_name(refusal->expected), errno_name(err), err ? "true" : "false",
	       strcmp(before, after) ? "false" : "true");
	free(before);
	free(after);
	if (!err && drain_old(swapper, &step, &drain, &unused_ns, &unused))
		die("%s was accepted, and then its swap did not end", refusal->name);
}

/* Side by side: of the ring's modules two must be free, one for each swapper. */
static void make_room(struct swapper *swapper, const struct hs_ctl_info *info)
{
	struct hs_ctl_drain drain = { .slot = SLOT, .timeout_ms = deadline_ms(), .retire = HS_RETIRE_ONE };
	unsigned int live, unused;

	for (live = info->live; info->order == HS_SIDE_BY_SIDE && live > swapper->ring.length - 2; live--)
		if (ioctl(swapper->ctl, HS_CTL_DRAIN, &drain) ||
		    remove_module_patiently(drain.module, 1000, 1000, &unused))
			die("retire: %s", strerror(errno));
}

/* A swap is held open between its halves while another edition knocks. */
static void try_second_swapper(struct swapper *swapper, const struct refusal *refusal, const struct hs_ctl_info *info)
{
	unsigned int version = info->newest + 1, unused;
	struct hs_ctl_drain drain;
	const char *step;
	__u64 unused_ns;
	int err;

	make_room(swapper, info);
	if (info->order != HS_OLD_FIRST) {
		err = insert_version(free_edition(swapper), version++, info->layout, "");
		if (err)
			die("first swapper: %s", strerror(err));
	}
	try_refusal(swapper, refusal, free_edition(swapper), version, info->layout, false);
	if (info->order != HS_OLD_FIRST && drain_old(swapper, &step, &drain, &unused_ns, &unused))
		die("the first swapper's %s failed", step);
}

int refuse_command(int argc, char **argv)
{
	const struct refusal *refusal = refusals;
	struct swapper swapper = { 0 };
	struct hs_ctl_info info;

	open_swapper(&swapper, argc, argv);
	if (!slot_info(swapper.ctl, &info) || !info.module[0])
		die("slot " SLOT " is empty");
	if (info.version < 2)
		die("refuse wants a slot that was swapped at least once");
	printf("{\"refusals\":[");
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++, refusal++) {
		slot_info(swapper.ctl, &info);
		if (refusal->expected == EBUSY)
			try_second_swapper(&swapper, refusal, &info);
		else
			try_refusal(&swapper, refusal, free_edition(&swapper), info.version + refusal->version,
				    info.layout, i == 0);
	}
	printf("]}\n");
	return 0;
}
