/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * hotswap ABI: what the kernel side and the guest tools share.
 *
 * /dev/hotswap takes calls: each HS_CALL ioctl is one reference to the slot's newest edition. So is each page fault in
 * a mapping of /dev/hotswap-fault, and each open of a file in the directory that /dev/hotswap-policy is told to watch.
 * /dev/hotswap-ctl belongs to the swapper and to whoever starts the interrupt sources; root only.
 */
#ifndef _UAPI_HOTSWAP_H
#define _UAPI_HOTSWAP_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define HS_NAME_LEN	32
#define HS_MODULE_LEN	64
#define HS_STAY_MAX_US	10000000

/* What a call asks of the edition. */
enum hs_op {
	HS_OP_CALC = 0,		/* run the edition's function */
	HS_OP_LOOKUP = 1,	/* read the edition's look-up table: a data resource, no edition code runs */
	HS_OP_SEAL = 2,		/* run the function that the same editions have behind the slot's mate */
	HS_OP_OPEN = 3,		/* the same as HS_OP_CALC, and decide by the edition's policy; the argument is a label */
	HS_OP_NR,
};

/* What a call does inside the edition before it computes, for as long as it is asked to stay there. */
enum hs_stay {
	HS_STAY_SLEEP = 0,	/* sleep where the edition can be asked to let go */
	HS_STAY_DOZE,		/* sleep in the kernel, where nobody can wake it */
	HS_STAY_SPIN,		/* keep the CPU */
	HS_STAY_SPIN_IRQOFF,	/* keep it, with interrupts off */
	HS_STAY_SPIN_ATOMIC,	/* keep it, in an RCU read section with preemption off */
	HS_STAY_NEST,		/* sleep inside a second call of the same slot, made from the edition */
	HS_STAY_NR,
};

/**
 * struct hs_call - one call, its answer, and who gave it
 * @arg:	in: the argument
 * @result:	out: what the edition computed
 * @version:	out: version of the edition the reference manager chose
 * @identity:	out: identity of that edition (enum hs_identity)
 * @op:		in: enum hs_op
 * @stay_us:	in: stay that long inside the edition; process context and HS_OP_CALC only
 * @stay:	in: enum hs_stay
 * @retried:	out: how often it was cut off and made again through the module table
 * @recovered:	out: how often its caller's recovery routine made it again
 * @flags:	the kernel's own: enum hs_call_flags
 * @denied:	out, of HS_OP_OPEN: 1 if the edition's policy denies it, else 0
 * @unused:	keeps the size a multiple of eight
 */
struct hs_call {
	__u64 arg;
	__u64 result;
	__u32 version;
	__u32 identity;
	__u32 op;
	__u32 stay_us;
	__u32 stay;
	__u32 retried;
	__u32 recovered;
	__u32 flags;
	__u32 denied;
	__u32 unused;
};

#define HS_CALL		_IOWR('h', 1, struct hs_call)
#define HS_BEGIN	_IO('h', 2)	/* calls of this open file belong to one transaction; such pairs nest */
#define HS_END		_IO('h', 3)	/* until the outermost is ended, or the file is closed; EINVAL if none is open */

/**
 * struct hs_answer - a call that was made on its caller's behalf, where the caller can see it
 * @call:	the call and its answer
 * @err:	0, or the negative errno that it ended with
 * @calls:	how many were made since the caller last looked
 *
 * The first bytes of each page of /dev/hotswap-fault, which hold one; and what HS_POLICY_LAST tells.
 */
struct hs_answer {
	struct hs_call call;
	__s32 err;
	__u32 calls;
};

/* Of /dev/hotswap-policy. The directory is watched until every file that named it is closed. */
#define HS_POLICY_WATCH	_IOW('h', 32, __s32)	/* a directory's descriptor; EBUSY if others named another one */
#define HS_POLICY_LAST	_IOR('h', 33, struct hs_answer)	/* the call that this task's last open there made */

/* When in a run a call happened. Latencies are kept apart by phase. */
enum hs_phase {
	HS_BEFORE = 0,		/* no swap yet */
	HS_DURING = 1,		/* first swap begins .. last swap ends */
	HS_AFTER = 2,
	HS_STOP = 3,		/* callers leave */
};

/* The order in which a mechanism wants a swap's steps. */
enum hs_order {
	HS_NEW_FIRST = 0,	/* load new, drain old, unload old */
	HS_OLD_FIRST = 1,	/* unload old, load new: nobody answers in between */
	HS_SIDE_BY_SIDE = 2,	/* load new, which joins the others; drain and unload the oldest of too many */
};

/* Which edition a drain takes out of the slot first. */
enum hs_retire {
	HS_RETIRE_REPLACED = 0,	/* none but what a swap replaced; side by side: the oldest, if there are too many */
	HS_RETIRE_ONE = 1,	/* the live one, leaving the slot empty; side by side: the oldest */
	HS_RETIRE_NEWEST = 2,	/* side by side: the newest, so that the one before answers again; ENODEV if there is none */
};

/**
 * struct hs_ctl_info - what a slot holds now
 * @slot:	in: the slot's name
 * @mechanism:	out: who swaps it
 * @edition:	out: name of the live edition, empty if none
 * @module:	out: its module
 * @retiring:	out: module of the edition that is replaced but not yet drained, empty if none
 * @version:	out: version of the live edition, 0 if none
 * @newest:	out: highest version the slot ever had
 * @order:	out: enum hs_order
 * @swaps:	out: editions accepted after the first
 * @layout:	out: number of its state's layout
 * @transforms:	out: 1 if an edition may bring the state to the next layout
 * @publish_ns:	out: how long the last publication took
 * @live:	out: editions that answer new references
 * @unused:	zero
 */
struct hs_ctl_info {
	char slot[HS_NAME_LEN];
	char mechanism[HS_NAME_LEN];
	char edition[HS_NAME_LEN];
	char module[HS_MODULE_LEN];
	char retiring[HS_MODULE_LEN];
	__u32 version;
	__u32 newest;
	__u32 order;
	__u32 swaps;
	__u32 layout;
	__u32 transforms;
	__u64 publish_ns;
	__u32 live;
	__u32 unused;
};

#define HS_ASK_NAMED	8

/* An open transaction: of which task, or which interrupt source (pid 0), which version it sees, and how old it is. */
struct hs_ctl_round {
	char task[16];
	__u32 pid;
	__u32 version;
	__u64 age_ns;
};

/**
 * struct hs_ctl_ask - may an update be applied now? EOPNOTSUPP from mechanisms without transactions
 * @slot:	in: the slot's name
 * @open:	out: how many transactions are open
 * @swapping:	out: 1 if another update is not over: none may be applied
 * @in_flight:	out: calls and transactions that an update which changes the layout has to wait for
 * @who:	out: the first of them, oldest first
 */
struct hs_ctl_ask {
	char slot[HS_NAME_LEN];
	__u32 open;
	__u32 swapping;
	__s64 in_flight;
	struct hs_ctl_round who[HS_ASK_NAMED];
};

/**
 * struct hs_ctl_drain - wait until a replaced edition has no references left
 * @slot:	in: the slot's name
 * @module:	out: the drained edition's module, which may now be unloaded; empty if there was nothing to drain
 * @timeout_ms:	in: give up with ETIMEDOUT after that long
 * @retire:	in: enum hs_retire
 * @drain_ns:	out: how long from the publication of the new edition until nobody executed the old one any more
 * @retire_ns:	out: and from then until its last reference was dropped; 0 where that is the same instant
 * @flush_ns:	out: part of the drain: changing the page tables and flushing every CPU
 * @fault_ns:	out: one contained fault in the old text, from the call to the landing
 */
struct hs_ctl_drain {
	char slot[HS_NAME_LEN];
	char module[HS_MODULE_LEN];
	__u32 timeout_ms;
	__u32 retire;
	__u64 drain_ns;
	__u64 retire_ns;
	__u64 flush_ns;
	__u64 fault_ns;
};

/**
 * struct hs_ctl_publish - publish the edition that stands by: ENODEV if none does, or why the mechanism does not let it in
 * @slot:	in: the slot's name
 */
struct hs_ctl_publish {
	char slot[HS_NAME_LEN];
};

#define HS_CTL_INFO	_IOWR('h', 16, struct hs_ctl_info)
#define HS_CTL_DRAIN	_IOWR('h', 17, struct hs_ctl_drain)
#define HS_CTL_PHASE	_IOW('h', 18, __u32)	/* enum hs_phase, for the interrupt sources */
#define HS_CTL_START	_IO('h', 19)		/* start every interrupt source */
#define HS_CTL_STOP	_IO('h', 20)		/* stop them; returns when none is in flight */
#define HS_CTL_PROGRESS	_IOR('h', 21, __u64)	/* calls the interrupt sources completed so far */
#define HS_CTL_SOURCES	_IOR('h', 22, __u32)	/* number of interrupt sources */
#define HS_CTL_ASK	_IOWR('h', 23, struct hs_ctl_ask)
#define HS_CTL_PUBLISH	_IOW('h', 24, struct hs_ctl_publish)

#endif /* _UAPI_HOTSWAP_H */
