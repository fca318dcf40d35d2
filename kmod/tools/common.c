// SPDX-License-Identifier: GPL-2.0-only
/*
 * What hs-ctl and hs-load share.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "common.h"

static unsigned int limit_ms = 30000;

char *plain(char *text)
{
	for (char *c = text; *c; c++)
		if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ')
			*c = '\'';
	return text;
}

void die(const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	printf("{\"error\":\"%s\"}\n", plain(text));
	fflush(stdout);
	exit(1);
}

__u64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

const char *errno_name(int number)
{
	return number ? strerrorname_np(number) ?: "unknown" : "0";
}

const char *option(int argc, char **argv, const char *name)
{
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], name))
			return argv[i + 1];
	return NULL;
}

__u64 option_number(int argc, char **argv, const char *name, __u64 otherwise)
{
	const char *text = option(argc, argv, name);
	char *end;
	__u64 number;

	if (!text)
		return otherwise;
	errno = 0;
	number = strtoull(text, &end, 0);
	if (errno || *end || end == text || *text == '-')
		die("%s wants a number, not %s", name, text);
	return number;
}

void set_deadline(int argc, char **argv)
{
	const char *speed = getenv("LAB_SPEED");
	double factor = speed ? atof(speed) : 1;

	if (factor < 1)
		factor = 1;
	limit_ms = option_number(argc, argv, "--deadline-ms", limit_ms * factor);
}

unsigned int deadline_ms(void)
{
	return limit_ms;
}

void wait_until(bool (*ready)(void *argument), void *argument, const char *what)
{
	static const struct timespec pause = { .tv_nsec = 1000000 };
	__u64 end_ns = now_ns() + limit_ms * 1000000ULL;

	while (!ready(argument)) {
		if (now_ns() > end_ns)
			die("no %s within %u ms", what, limit_ms);
		nanosleep(&pause, NULL);
	}
}

const char *beside(const char *name)
{
	static char path[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (length < 0)
		die("readlink: %s", strerror(errno));
	path[length] = 0;
	length = strlen(dirname(path));
	snprintf(path + length, sizeof(path) - length, "/%s", name);
	return path;
}

struct phase_page *open_phase_page(bool create)
{
	int fd = open(beside("phase"), O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0600);
	void *page;

	if (fd < 0 || (create && ftruncate(fd, sizeof(struct phase_page))))
		die("phase page: %s", strerror(errno));
	page = mmap(NULL, sizeof(struct phase_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		die("phase page: %s", strerror(errno));
	close(fd);
	return page;
}

int open_ctl(void)
{
	int fd = open("/dev/hotswap-ctl", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die("/dev/hotswap-ctl: %s", strerror(errno));
	return fd;
}

__u64 irq_progress(int ctl)
{
	__u64 calls = 0;

	if (ioctl(ctl, HS_CTL_PROGRESS, &calls))
		die("HS_CTL_PROGRESS: %s", strerror(errno));
	return calls;
}
