// SPDX-License-Identifier: GPL-2.0-only
/*
 * hs-load: calls by page faults.
 *
 * Purpose: each thread maps a range of /dev/hotswap-fault of its own and touches pages at a random place: each fault
 * makes one call, and the page holds the answer. Then it drops them, a few at a time, because dropping interrupts every
 * CPU that a thread of the process runs on; and the next touch of each faults again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "load.h"

#define FAULT_PAGES	16384
#define FAULT_RUN	16	/* pages that are dropped at once */

static size_t page_size;

static void begin_faults(struct caller *caller)
{
	int fd = open_device("/dev/hotswap-fault", O_RDONLY);

	page_size = sysconf(_SC_PAGESIZE);
	caller->pages = mmap(NULL, FAULT_PAGES * page_size, PROT_READ, MAP_SHARED, fd, 0);
	if (caller->pages == MAP_FAILED)
		die("mmap of /dev/hotswap-fault: %s", strerror(errno));
	close(fd);
}

static void one_fault(struct caller *caller, __u64 place)
{
	const char *page = caller->pages + place * page_size;
	struct hs_answer answer;
	struct timing timing;

	begin_call(caller, &timing);
	*(const volatile char *)page;
	timing.end_ns = now_ns();
	memcpy(&answer, page, sizeof(answer));
	end_call(caller, &timing, &answer.call, -answer.err, answer.calls == 1 && answer.call.arg == hs_mix(place, 0));
}

static void touch_pages(struct caller *caller)
{
	__u64 first = hs_random(&caller->random) % (FAULT_PAGES - FAULT_RUN);

	for (__u64 i = 0; i < FAULT_RUN; i++)
		one_fault(caller, first + i);
	if (madvise((void *)(caller->pages + first * page_size), FAULT_RUN * page_size, MADV_DONTNEED))
		die("madvise: %s", strerror(errno));
}

const struct kind faults = { .name = "exception", .begin = begin_faults, .call = touch_pages };
