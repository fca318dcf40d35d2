// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loading and unloading, for hs-ctl: (f)init_module and delete_module as they are, without modprobe's opinions.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "common.h"
#include "modules.h"

char *read_file(const char *path)
{
	size_t room = 1 << 16, used = 0;
	char *text = malloc(room);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (!text)
		die("no memory");
	if (fd < 0) {
		free(text);
		return NULL;
	}
	while ((got = read(fd, text + used, room - used - 1)) > 0) {
		used += got;
		if (room - used < 2) {
			room *= 2;
			text = realloc(text, room);
			if (!text)
				die("no memory");
		}
	}
	close(fd);
	text[used] = 0;
	return text;
}

/* The mechanism that hs_core was loaded with. */
static bool mechanism_is(const char *name)
{
	char *mechanism = read_file("/sys/module/hs_core/parameters/mechanism");
	bool same = mechanism && !strncmp(mechanism, name, strlen(name)) && mechanism[strlen(name)] == '\n';

	free(mechanism);
	return same;
}

/*
 * As a livepatch: the same file, of which the word "Livepatch" in .modinfo becomes the kernel's own "livepatch" in
 * memory; see HS_SITE() in include/hotswap.h. A module without that word is loaded as it is.
 */
static int insert_as_livepatch(int fd, const char *file, const char *parameters)
{
	static const char mark[] = "Livepatch=Y";
	struct stat status;
	char *image, *found;
	int err;

	if (fstat(fd, &status))
		die("%s: %s", file, strerror(errno));
	image = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (image == MAP_FAILED)
		die("%s: %s", file, strerror(errno));
	found = memmem(image, status.st_size, mark, sizeof(mark));
	if (found)
		*found = 'l';
	err = syscall(SYS_init_module, image, status.st_size, parameters) ? errno : 0;
	munmap(image, status.st_size);
	return err;
}

int insert_module(const char *name, const char *parameters)
{
	char file[NAME_MAX_LEN + 4];
	int fd, err;

	snprintf(file, sizeof(file), "%s.ko", name);
	fd = open(beside(file), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("%s: %s", file, strerror(errno));
	if (mechanism_is("livepatch"))
		err = insert_as_livepatch(fd, file, parameters);
	else
		err = syscall(SYS_finit_module, fd, parameters, 0) ? errno : 0;
	close(fd);
	return err;
}

int remove_module(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0;
}

int remove_module_patiently(const char *name, unsigned int limit, unsigned int pause_us, unsigned int *attempts)
{
	struct timespec pause = { .tv_nsec = pause_us * 1000L };
	int err;

	for (*attempts = 1; ; ++*attempts) {
		err = remove_module(name);
		if ((err != EWOULDBLOCK && err != EBUSY) || *attempts == limit)
			return err;
		nanosleep(&pause, NULL);
	}
}

/* The value of replaces= in a module's .modinfo, which it may be the first of. */
static void read_replaces(const char *name, char *replaces)
{
	static const char key[] = "replaces=";
	char file[NAME_MAX_LEN + 4];
	static char buffer[1 << 22];
	const char *found;
	size_t length;
	FILE *stream;

	snprintf(file, sizeof(file), "%s.ko", name);
	stream = fopen(beside(file), "re");
	if (!stream)
		die("%s: %s", file, strerror(errno));
	length = fread(buffer, 1, sizeof(buffer) - 1, stream);
	fclose(stream);
	found = memmem(buffer, length, key, sizeof(key) - 1);
	if (!found)
		die("%s does not say which module it replaces", file);
	snprintf(replaces, NAME_MAX_LEN, "%s", found + sizeof(key) - 1);
}

void choose_mutant(const char *name)
{
	char module[NAME_MAX_LEN], replaces[NAME_MAX_LEN];
	FILE *stream;

	if (!name) {
		unlink(beside("mutant"));
		return;
	}
	snprintf(module, sizeof(module), "hs_mut_%s", name);
	read_replaces(module, replaces);
	stream = fopen(beside("mutant"), "we");
	if (!stream || fprintf(stream, "%s %s\n", module, replaces) < 0 || fclose(stream))
		die("cannot note the mutant: %s", strerror(errno));
}

const char *resolve(const char *name)
{
	static char module[NAME_MAX_LEN], replaces[NAME_MAX_LEN];
	static bool read;
	FILE *stream;

	if (!read) {
		stream = fopen(beside("mutant"), "re");
		if (stream) {
			if (fscanf(stream, "%63s %63s", module, replaces) != 2)
				die("the note of the mutant is damaged");
			fclose(stream);
		}
		read = true;
	}
	return strcmp(name, replaces) ? name : module;
}

unsigned int own_modules(const char *names[], unsigned int room)
{
	unsigned int found = 0;
	glob_t files = { 0 };

	if (!glob(beside("hs_own_*.ko"), 0, NULL, &files)) {
		if (files.gl_pathc > room)
			die("%zu editions of one's own; there is room for %u", files.gl_pathc, room);
		while (found < files.gl_pathc) {
			char *name = strdup(basename(files.gl_pathv[found]));

			if (!name)
				die("no memory");
			*strrchr(name, '.') = 0;
			names[found++] = name;
		}
	}
	globfree(&files);
	return found;
}

size_t loaded_modules(char names[MODULES_MAX][NAME_MAX_LEN])
{
	FILE *stream = fopen("/proc/modules", "re");
	char line[512];
	size_t found = 0;

	if (!stream)
		die("/proc/modules: %s", strerror(errno));
	while (found < MODULES_MAX && fgets(line, sizeof(line), stream))
		if (!strncmp(line, "hs_", 3) && sscanf(line, "%63s", names[found]) == 1)
			found++;
	fclose(stream);
	return found;
}

bool is_loaded(const char *name)
{
	char names[MODULES_MAX][NAME_MAX_LEN];
	size_t found = loaded_modules(names);

	while (found--)
		if (!strcmp(names[found], name))
			return true;
	return false;
}
