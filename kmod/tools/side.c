// SPDX-License-Identifier: GPL-2.0-only
/*
 * hs-ctl settle, reverse, retire, insert, publish, remove: one step at a time, of any slot.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include "common.h"
#include "ctl.h"
#include "modules.h"

/* rmmod of a module in use fails at once and is tried again: so many times, with such a pause. */
#define REMOVE_LIMIT	1000
#define REMOVE_PAUSE_US	1000

/* The load takes every CPU it can get; these steps should not wait for its time slices. */
static void go_first(void)
{
	if (setpriority(PRIO_PROCESS, 0, -20))
		die("setpriority: %s", strerror(errno));
}

static void print_error(int err)
{
	if (err)
		printf("\"error\":\"%s\"}}\n", errno_name(err));
	else
		printf("\"error\":null}}\n");
}

int retire_command(int argc, char **argv, const char *command, __u32 retire)
{
	struct hs_ctl_drain drain = { .timeout_ms = deadline_ms(), .retire = retire };
	const char *slot = option(argc, argv, "--slot") ?: SLOT;
	unsigned int attempts;
	struct hs_ctl_info info = { 0 };
	int ctl = open_ctl(), err;

	go_first();
	snprintf(drain.slot, sizeof(drain.slot), "%s", slot);
	snprintf(info.slot, sizeof(info.slot), "%s", slot);
	err = ioctl(ctl, HS_CTL_DRAIN, &drain) ? errno : 0;
	if (!err && !drain.module[0] && retire != HS_RETIRE_REPLACED)
		err = ENODEV;
	if (!err && drain.module[0])	/* a module may hold other editions, of other slots */
		err = remove_module_patiently(drain.module, REMOVE_LIMIT, REMOVE_PAUSE_US, &attempts);
	if (ioctl(ctl, HS_CTL_INFO, &info) && errno != ENOENT)
		die("HS_CTL_INFO: %s", strerror(errno));
	printf("{\"%s\":{\"slot\":\"%s\",\"module\":\"%s\",\"edition\":\"%s\",\"version\":%u,\"newest\":%u,\"live\":%u,",
	       command, slot, drain.module, info.edition, info.version, info.newest, info.live);
	printf("\"drain_ns\":%llu,\"retire_ns\":%llu,", drain.drain_ns, drain.retire_ns);
	print_error(err);
	return 0;
}

int insert_command(int argc, char **argv)
{
	const char *parameters = option(argc, argv, "--parameters") ?: "";

	if (argc < 3)
		die("insert wants a module");
	go_first();
	printf("{\"insert\":{\"module\":\"%s\",", resolve(argv[2]));
	print_error(insert_module(resolve(argv[2]), parameters));
	return 0;
}

/* Of the edition that stands by (hold=1); the one before it is drained and unloaded, as by `settle`. */
int publish_command(int argc, char **argv)
{
	struct hs_ctl_publish publish = { 0 };

	go_first();
	snprintf(publish.slot, sizeof(publish.slot), "%s", option(argc, argv, "--slot") ?: SLOT);
	if (!ioctl(open_ctl(), HS_CTL_PUBLISH, &publish))
		return retire_command(argc, argv, "publish", HS_RETIRE_REPLACED);
	printf("{\"publish\":{\"slot\":\"%s\",\"refused\":true,", publish.slot);
	print_error(errno);
	return 0;
}

int remove_command(int argc, char **argv)
{
	if (argc < 3)
		die("remove wants a module");
	printf("{\"remove\":{\"module\":\"%s\",", resolve(argv[2]));
	print_error(remove_module(resolve(argv[2])));
	return 0;
}
