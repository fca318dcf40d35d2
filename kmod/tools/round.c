// SPDX-License-Identifier: GPL-2.0-only
/*
 * hs-ctl round: one transaction, held open.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include "common.h"
#include "ctl.h"

/* One call that belongs to it. Returns the version that answered. */
static __u32 ask_version(int device, __u32 op)
{
	struct hs_call call = { .arg = 1, .op = op };

	if (ioctl(device, HS_CALL, &call))
		die("HS_CALL: %s", strerror(errno));
	return call.version;
}

/* Begin, call the slot, wait, call the slot and its mate, end. A line at the beginning and one at the end. */
int round_command(int argc, char **argv)
{
	__u64 wait_ms = option_number(argc, argv, "--ms", 1000);
	const struct timespec wait = { .tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000 };
	int device = open("/dev/hotswap", O_RDWR | O_CLOEXEC);

	if (device < 0)
		die("/dev/hotswap: %s", strerror(errno));
	if (ioctl(device, HS_BEGIN))
		die("HS_BEGIN: %s", strerror(errno));
	printf("{\"round\":{\"began\":%u}}\n", ask_version(device, HS_OP_CALC));
	fflush(stdout);
	nanosleep(&wait, NULL);
	printf("{\"round\":{\"slot\":%u,\"mate\":%u}}\n", ask_version(device, HS_OP_CALC), ask_version(device, HS_OP_SEAL));
	if (ioctl(device, HS_END))
		die("HS_END: %s", strerror(errno));
	return 0;
}
