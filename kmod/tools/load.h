/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hs-load's callers, by kind.
 */
#ifndef HS_TOOLS_LOAD_H
#define HS_TOOLS_LOAD_H

#include <pthread.h>
#include "common.h"
#include "hs_recorder.h"

#define ERRNO_MAX	134

struct caller;

/* How a kind of thread calls. The name is the one that the kernel counts its calls under. */
struct kind {
	const char *name;
	void (*begin)(struct caller *caller);		/* in the thread itself, once */
	void (*call)(struct caller *caller);		/* one call, or a few that belong together */
	void (*print)(const struct caller *caller);	/* more members of its JSON object, each with a comma; may be NULL */
};

extern const struct kind faults, opens;

/* What came of a thread's opens. */
struct opened {
	__u64 opens;
	__u64 refused;
	__u64 forbidden_opened;	/* a forbidden file was opened */
	__u64 slipped;		/* of those, how many an edition answered */
	__u64 allowed_refused;	/* an allowed one was not */
};

struct caller {
	pthread_t thread;
	const struct kind *kind;
	unsigned int id;
	__u64 random;
	int fd;
	__u32 stay, stay_us;	/* in each call; 0: a brisk caller */
	const char *pages;	/* of `faults` */
	struct opened opened;	/* of `opens` */
	__u64 errors[ERRNO_MAX];
	struct hs_recorder rec;
};

/* When a call began and ended, and in which phase. */
struct timing {
	__u32 phase;
	__u64 start_ns, end_ns;
};

void begin_call(struct caller *caller, struct timing *timing);
/* @timing->end_ns is set. Returns the version that answered, 0 if none did; @right: what else must be so, is. */
__u32 end_call(struct caller *caller, const struct timing *timing, const struct hs_call *call, int err, bool right);

/* Dies if it can not. */
int open_device(const char *path, int flags);

#endif /* HS_TOOLS_LOAD_H */
