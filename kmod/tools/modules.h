/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Loading and unloading, for hs-ctl.
 */
#ifndef HS_TOOLS_MODULES_H
#define HS_TOOLS_MODULES_H

#include <stdbool.h>
#include <stddef.h>

#define NAME_MAX_LEN	64
#define MODULES_MAX	64

/* Module files are named without .ko and lie beside the tools. Both return 0 or an errno. */
int insert_module(const char *name, const char *parameters);
int remove_module(const char *name);
/* Again while it is in use, at most @limit times with @pause_us in between; *attempts counts. */
int remove_module_patiently(const char *name, unsigned int limit, unsigned int pause_us, unsigned int *attempts);

/* A mutant stands in for the module that its .modinfo names. It is remembered in a file until the next `up`. */
void choose_mutant(const char *name);
const char *resolve(const char *name);

/* Names of the modules hs_own_* beside the tools, in their order, which live on. Returns their number. */
unsigned int own_modules(const char *names[], unsigned int room);

/* Loaded modules whose names begin with hs_, newest first. Returns their number. */
size_t loaded_modules(char names[MODULES_MAX][NAME_MAX_LEN]);
bool is_loaded(const char *name);

/* A whole file as a string; the caller frees it. NULL if it cannot be read. */
char *read_file(const char *path);

#endif /* HS_TOOLS_MODULES_H */
