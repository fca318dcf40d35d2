// SPDX-License-Identifier: GPL-2.0-only
/*
 * hs-load: calls by opens of files.
 *
 * Purpose: a folder beside the tools holds files that the policies of all editions allow and files that they all
 * forbid. Each thread opens one of them, and then asks who decided about that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "load.h"

#define FOLDER	"policy"

static int folder;

/* The @number-th file of its kind. */
static void name_file(char name[32], bool forbidden, unsigned int number)
{
	snprintf(name, 32, forbidden ? HS_POLICY_FORBIDDEN : HS_POLICY_ALLOWED, number);
}

static void make_files(void)
{
	struct stat found;
	char name[32];

	for (unsigned int i = 0; i < 2 * HS_POLICY_FILES; i++) {
		name_file(name, i % 2, i / 2);
		if (!fstatat(folder, name, &found, 0))
			continue;
		if (mknodat(folder, name, S_IFREG | 0600, 0) && errno != EEXIST)
			die("%s: %s", name, strerror(errno));
	}
}

/* Once, before anybody watches. */
static void open_folder(void)
{
	if (mkdir(beside(FOLDER), 0700) && errno != EEXIST)
		die(FOLDER ": %s", strerror(errno));
	folder = open_device(beside(FOLDER), O_RDONLY | O_DIRECTORY);
	make_files();
}

static void begin_opens(struct caller *caller)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, open_folder);
	caller->fd = open_device("/dev/hotswap-policy", O_RDONLY);
	if (ioctl(caller->fd, HS_POLICY_WATCH, &folder))
		die("HS_POLICY_WATCH: %s", strerror(errno));
}

static void one_open(struct caller *caller)
{
	__u64 random = hs_random(&caller->random);
	struct opened *opened = &caller->opened;
	bool forbidden = random & 1, refused;
	struct timing timing;
	struct hs_answer last;
	char name[32];
	int fd;

	name_file(name, forbidden, (random >> 8) % HS_POLICY_FILES);
	begin_call(caller, &timing);
	fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
	timing.end_ns = now_ns();
	refused = fd < 0;
	if (!refused)
		close(fd);
	if (ioctl(caller->fd, HS_POLICY_LAST, &last))
		die("HS_POLICY_LAST: %s", strerror(errno));
	opened->opens++;
	opened->refused += refused;
	opened->forbidden_opened += forbidden && !refused;
	opened->slipped += forbidden && !refused && !last.err;
	opened->allowed_refused += !forbidden && refused;
	end_call(caller, &timing, &last.call, -last.err,
		 last.calls == 1 && last.call.arg == hs_hash(name) && last.call.denied == refused);
}

static void print_opened(const struct caller *caller)
{
	const struct opened *opened = &caller->opened;

	printf("\"policy\":{\"opens\":%llu,\"refused\":%llu,\"forbidden_opened\":%llu,\"slipped\":%llu,"
	       "\"allowed_refused\":%llu},", opened->opens, opened->refused, opened->forbidden_opened, opened->slipped,
	       opened->allowed_refused);
}

const struct kind opens = { .name = "policy", .begin = begin_opens, .call = one_open, .print = print_opened };
