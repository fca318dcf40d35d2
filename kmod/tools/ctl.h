/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hs-ctl's commands, and what they share.
 */
#ifndef HS_TOOLS_CTL_H
#define HS_TOOLS_CTL_H

#include <stdbool.h>
#include "common.h"
#include "uapi/hotswap.h"

#define SLOT		"calc"
#define RING		4	/* editions that swaps go round, at least */
#define RING_MAX	16
#define STATE_FILE	"/sys/kernel/debug/hotswap/state"
#define STATS_FILE	"/sys/kernel/debug/hotswap/stats"
#define REASON_FILE	"/sys/kernel/debug/hotswap/reason"

struct ring {
	const char *module[RING_MAX];
	unsigned int length;
};

struct swapper {
	int ctl;
	struct phase_page *page;
	struct ring ring;
	const char *edition;	/* more parameters of each edition */
	__u64 random;
	unsigned int irq_sources;
	/* what wait_until() compares with */
	__u64 base[THREADS_MAX];
	__u64 base_irq;
	__u64 wanted, wanted_irq;
};

int swap_command(int argc, char **argv);
int refuse_command(int argc, char **argv);
int round_command(int argc, char **argv);

/* side.c: take one edition out of a slot, for @retire (enum hs_retire), and unload it; modules by hand */
int retire_command(int argc, char **argv, const char *command, __u32 retire);
int insert_command(int argc, char **argv);
int publish_command(int argc, char **argv);
int remove_command(int argc, char **argv);

/* The editions in the order of this seed, mutants in place: modules hs_own_*, and the shipped ones that there is room for. */
void fill_ring(struct ring *ring, __u64 seed);
/* What the slot holds; false if there is no such slot. */
bool slot_info(int ctl, struct hs_ctl_info *info);

/* swap.c */
void open_swapper(struct swapper *swapper, int argc, char **argv);
/* The edition so many places after the live one in the ring. */
int insert_version(const char *module, unsigned int version, unsigned int layout, const char *more);
/* Wait for the old edition's last reference and unload it. Returns 0 or an errno; *step says where. */
int drain_old(struct swapper *swapper, const char **step, struct hs_ctl_drain *drain, __u64 *unload_ns,
	      unsigned int *attempts);

#endif /* HS_TOOLS_CTL_H */
