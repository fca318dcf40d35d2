/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What hs-ctl and hs-load share: the phase page, deadlines, modules, JSON errors.
 */
#ifndef HS_TOOLS_COMMON_H
#define HS_TOOLS_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include "uapi/hotswap.h"

#define THREADS_MAX	64
#define SAMPLE_CALLS	1000	/* calls of each thread that make a sample of a phase */
#define SAMPLE_IRQS	200	/* calls of the interrupt sources, all together, that do */

/*
 * One page of shared memory in a file beside the tools. hs-ctl writes phase; each thread of hs-load writes its own
 * counter; hs-load writes the rest. Nobody needs a lock.
 */
struct phase_page {
	_Atomic(__u32) phase;		/* enum hs_phase */
	_Atomic(__u32) running;	/* hs-load is at work */
	_Atomic(__u32) ended;		/* hs-load has said its last */
	_Atomic(__u32) threads;
	struct {
		_Atomic(__u64) completed;
		char own_line[56];
	} thread[THREADS_MAX];
};

/* One line {"error":"..."} on stdout, then exit 1. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

/* Text that needs no escapes in JSON: it is changed where it would. */
char *plain(char *text);

__u64 now_ns(void);
const char *errno_name(int number);

/* Options, the same for both tools: --name value. NULL if absent. */
const char *option(int argc, char **argv, const char *name);
__u64 option_number(int argc, char **argv, const char *name, __u64 otherwise);

/* --deadline-ms, else 30 s times the environment's LAB_SPEED: how long each single wait may take. */
void set_deadline(int argc, char **argv);
unsigned int deadline_ms(void);
/* Look again every millisecond until ready(argument); dies naming @what at the deadline. */
void wait_until(bool (*ready)(void *argument), void *argument, const char *what);

/* A file in the tools' folder. The result is overwritten by the next call. */
const char *beside(const char *name);
struct phase_page *open_phase_page(bool create);

int open_ctl(void);
__u64 irq_progress(int ctl);

#endif /* HS_TOOLS_COMMON_H */
