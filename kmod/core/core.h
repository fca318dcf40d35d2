/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hotswap core - the contract for mechanisms and loads.
 *
 * A slot is a named entry of the module table. Each edition that registers gets a reference record (struct hs_ref) with
 * its own counters; the slot points at the record that answers new references. A mechanism is one struct of
 * operations: how a reference is taken and dropped, how an edition is published, and when the old one is over.
 *
 * Locking: hs_lock (core/table.c) guards the table of slots, their records and every change of slot->ref. Dispatch
 * takes no lock: it reads slot->ref inside a section with preemption off, which synchronize_rcu() waits for.
 */
#ifndef HS_CORE_H
#define HS_CORE_H

#include <linux/jump_label.h>
#include <linux/list.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/seq_file.h>
#include <linux/swait.h>
#include "../include/hotswap.h"
#include "../include/hs_recorder.h"

struct hs_slot;

/* Functions that an edition has: one for its slot, one for the slot's mate. */
#define HS_ENTRIES	2

/* In hs_call->flags. */
enum hs_call_flags {
	HS_CALL_MAY_WAIT = 1,	/* the caller is a task that may be made to wait before its call begins */
};

/* struct hs_count - one CPU's share of an edition's counters; only ever incremented, so that any context may. */
struct hs_count {
	unsigned long enter;	/* references taken */
	unsigned long exit;	/* references dropped: calls completed */
	unsigned long failed;	/* look-ups that found the edition but could not take it */
	unsigned long aborted;	/* references cut off: the call went on elsewhere */
	unsigned long committed; /* calls that hs_commit() let pass */
	unsigned long settled;	/* of those, how many have left the edition; where the mechanism needs to know */
	unsigned long begun;	/* transactions that began with the edition */
	unsigned long ended;	/* of those, how many are over */
};

/* What a drain can tell of itself; zero where it does not apply. */
struct hs_drained {
	u64 gone_ns;		/* when nobody executed the old edition any more, where that was before the drain's end */
	u64 flush_ns;		/* changing the page tables and flushing every CPU */
	u64 fault_ns;		/* one contained fault: from the call to the landing */
};

enum hs_state {
	HS_LIVE,		/* answers new references */
	HS_RETIRED,		/* replaced; old references may be in flight */
	HS_GONE,		/* no reference is left; its module may go */
};

/**
 * struct hs_ref - the reference manager's record of one edition
 * @edition:	what registered; not to be used once the state is HS_GONE
 * @call:	edition->call, and edition->mate_call
 * @count:	its counters; NULL once folded into @total
 * @version:	edition->version
 * @identity:	edition->identity
 * @restart:	edition->restart
 * @draining:	set when nobody may take new references; most mechanisms have whoever drops one kick @drained then
 * @revoked:	set when calls are to leave as soon as they can: nobody commits or sleeps in it any more
 * @asleep:	where calls sleep that may be woken
 * @own:	the mechanism's
 * @left_ns:	when new references began to go elsewhere; a drain's clock begins there
 * @drained:	where the swapper waits for the last reference
 * @slot:	where it stands
 * @node:	in slot->refs
 * @name:	edition->name
 * @module:	name of its module
 * @text:	where the module's code lies; stays when it is gone, for debuggers: a task may come back to it
 * @state:	enum hs_state, under hs_lock
 * @total:	the counters' sums, once gone
 */
struct hs_ref {
	const struct hs_edition *edition;
	int (*call[HS_ENTRIES])(const struct hs_edition *self, struct hs_call *call);
	struct hs_count __percpu *count;
	u32 version;
	u32 identity;
	enum hs_restart restart;
	bool draining;
	bool revoked;
	struct swait_queue_head drained;
	struct swait_queue_head asleep;
	void *own;
	u64 left_ns;

	struct hs_slot *slot;
	struct list_head node;
	char name[HS_NAME_LEN];
	char module[HS_MODULE_LEN];
	const void *text;
	enum hs_state state;
	struct hs_count total;
};

/**
 * struct hs_round - calls that belong together: a transaction, where the mechanism has them
 * @slot:	the slot; its mate belongs to it
 * @ref:	the mechanism's: the edition that all its calls find
 * @flags:	enum hs_call_flags
 * @who:	of whom it is, for reports: an interrupt source's name; NULL for the task
 * @task:	name and number of the task that began it
 * @pid:	the same
 * @since_ns:	when
 * @node:	the mechanism's
 */
struct hs_round {
	struct hs_slot *slot;
	struct hs_ref *ref;
	u32 flags;
	const char *who;
	char task[TASK_COMM_LEN];
	pid_t pid;
	u64 since_ns;
	struct list_head node;
};

/**
 * struct hs_mechanism - how editions of a slot are swapped
 * @name:	as in core's parameter `mechanism`; of two with one name, the one that registered last is used
 * @owner:	THIS_MODULE
 * @order:	enum hs_order: whether the new edition comes before the old one goes
 * @keep:	HS_SIDE_BY_SIDE: how many editions of a slot stay live when a swap is over
 * @transforms:	whether @admit lets editions in that change the layout of the state
 * @init:	prepare, before its first slot. Context: process, hs_lock held. Return: 0, or why this kernel can not
 *		do it: the slot is then refused. May be NULL.
 * @exit:	undo @init, after its last slot. Context: process, hs_lock held. May be NULL.
 * @call:	one reference: look up, take, run the edition's function, drop. Context: any. Return: the edition's
 *		answer, or -ENODEV if nobody stands behind the slot.
 * @begin:	begin a transaction: every call in it finds the editions of its beginning. Context: any; waits only if
 *		@flags of the round say so. Return: 0 or -errno. NULL where calls of a round go wherever they go.
 * @end:	end it. Context: any.
 * @join:	one call that belongs to a transaction of this mechanism. Context: any.
 * @nest:	one call that the edition @ref makes of its own slot. Context: any. NULL: as any other call.
 * @admit:	whether an edition may stand behind the slot; see core/policy.h. Changes nothing. Context: process,
 *		hs_lock held. Return: 0 or -errno.
 * @adopt:	take what keeps the edition's module in place. Context: process, hs_lock held. Return: 0 or -errno.
 * @publish:	make @new (may be NULL) answer new references instead of @old (may be NULL). HS_SIDE_BY_SIDE: @new is the
 *		newest of those in slot->refs that are live, and @old is no longer one of them. Context: process,
 *		hs_lock held. Return: 0; or why not, and then nothing has changed. Without @new it does not fail.
 * @drain:	wait until @old, no longer published, has no references on any CPU. Context: process, may sleep, no
 *		lock. Return: 0, -ETIMEDOUT after @timeout_ms, -EINTR on a signal. May be called again after an error.
 * @release:	undo @adopt; the module may be unloaded from here on. Context: process, hs_lock held.
 * @ask:	who has a transaction open: fills in @open and @who. Context: process, no lock. May be NULL.
 * @forget:	the edition's module is being unloaded, after @release: free what had to stay as long as it. Context:
 *		process, hs_lock held. May be NULL.
 * @show:	its own figures as members of a JSON object. Context: process. May be NULL.
 * @leave:	the edition's module is being unloaded while live. NULL where @adopt prevents that. Returns when no
 *		reference is left. Context: process, hs_lock held.
 * @slots:	how many there are; the core's
 * @node:	the core's
 *
 * @drain and @release are NULL for HS_OLD_FIRST: unloading the module is their drain.
 */
struct hs_mechanism {
	const char *name;
	struct module *owner;
	enum hs_order order;
	unsigned int keep;
	bool transforms;
	int (*init)(void);
	void (*exit)(void);
	int (*call)(struct hs_slot *slot, struct hs_call *call);
	int (*begin)(struct hs_round *round);
	void (*end)(struct hs_round *round);
	int (*join)(struct hs_round *round, struct hs_slot *slot, struct hs_call *call);
	int (*nest)(struct hs_ref *ref, struct hs_slot *slot, struct hs_call *call);
	int (*admit)(const struct hs_slot *slot, const struct hs_edition *edition);
	int (*adopt)(struct hs_slot *slot, struct hs_ref *ref);
	int (*publish)(struct hs_slot *slot, struct hs_ref *new, struct hs_ref *old);
	int (*drain)(struct hs_slot *slot, struct hs_ref *old, unsigned int timeout_ms, struct hs_drained *figures);
	void (*release)(struct hs_slot *slot, struct hs_ref *ref);
	void (*leave)(struct hs_slot *slot, struct hs_ref *ref);
	void (*ask)(struct hs_ctl_ask *ask);
	void (*forget)(struct hs_slot *slot, struct hs_ref *ref);
	void (*show)(struct seq_file *seq);
	unsigned int slots;
	struct list_head node;
};

/**
 * struct hs_slot - one entry of the module table
 * @ref:	who answers new references; see hs_slot_newest() and hs_slot_set()
 * @call:	mechanism->call, one load closer
 * @entry:	which of an edition's functions it calls
 * @mate:	a second entry, for the editions' second function, which changes with this one; a mate has none
 * @empty:	calls that found nobody, by CPU
 * @mechanism:	who swaps it
 * @node:	in the table
 * @name:	its name
 * @retiring:	the replaced edition until its drain is over: a swap is in progress
 * @draining:	somebody is in the mechanism's drain
 * @held:	an edition that stands by: registered, and nothing else yet
 * @joined:	HS_SIDE_BY_SIDE: an edition has joined the others, and its swap is not over: a swap is in progress
 * @newest:	highest version accepted; 0 before the first edition
 * @swaps:	editions accepted after the first
 * @users:	loads that hold the slot, and editions held, live or retired
 * @publish_ns:	how long the last publish took
 * @interface:	of the first edition, and so of all
 * @layout:	of @state
 * @state:	handed from edition to edition
 * @refs:	records of every edition that ever registered, oldest first
 */
struct hs_slot {
	struct hs_ref *ref;
	int (*call)(struct hs_slot *slot, struct hs_call *call);
	unsigned long __percpu *empty;
	unsigned int entry;

	struct hs_slot *mate;
	struct hs_mechanism *mechanism;
	struct list_head node;
	char name[HS_NAME_LEN];
	struct hs_ref *retiring;
	struct hs_edition *held;
	bool draining;
	bool joined;
	u32 newest;
	u32 swaps;
	unsigned int users;
	u64 publish_ns;
	u64 interface;
	struct hs_layout layout;
	void *state;
	struct list_head refs;
};

/**
 * struct hs_source - a place where calls come from
 * @name:	as in the statistics
 * @slot:	which it calls
 * @start:	begin. Context: process. Return: 0 or -errno. NULL for a source that user space drives.
 * @stop:	end; returns when none is in flight. Context: process.
 * @totals:	for a source without @rec: calls issued, completed, failed
 * @show:	more members of its JSON object, each after a comma. Context: process. May be NULL.
 * @raised:	interrupts asked for; one writer
 * @handled:	of those, how many reached the handler; one writer
 * @overruns:	periods that a timer missed because the machine was late; nobody asked for those
 * @random:	state of hs_random(); set by the core
 * @rec:	figures; allocated by the core for sources with @start
 * @node:	the core's
 */
struct hs_source {
	const char *name;
	struct hs_slot *slot;
	int (*start)(struct hs_source *source);
	void (*stop)(struct hs_source *source);
	void (*totals)(struct hs_source *source, u64 *issued, u64 *completed, u64 *failed);
	void (*show)(struct hs_source *source, struct seq_file *seq);
	u64 raised;
	u64 handled;
	u64 overruns;
	u64 random;
	struct hs_recorder *rec;
	struct list_head node;
};

/* Race points: named instants where order matters. A nop when off, a seeded delay when on; see core/race.c. */
DECLARE_STATIC_KEY_FALSE(hs_race_key);
void hs_race_hit(const char *point);

#define HS_RACE(point) do {					\
	if (static_branch_unlikely(&hs_race_key))		\
		hs_race_hit(point);				\
} while (0)

/* Who answers new references now. Whoever calls this has preemption off until the reference is counted. */
static __always_inline struct hs_ref *hs_slot_newest(struct hs_slot *slot)
{
	/* Pairs with smp_store_release() in hs_slot_set(): the record is filled in. */
	return smp_load_acquire(&slot->ref);
}

/* The slot first, then its mate: in between, who calls both finds two editions. Context: process, hs_lock held. */
static inline void hs_slot_set(struct hs_slot *slot, struct hs_ref *ref)
{
	/* Pairs with smp_load_acquire() in hs_slot_newest(). */
	smp_store_release(&slot->ref, ref);
	HS_RACE("table.half");
	smp_store_release(&slot->mate->ref, ref && ref->call[1] ? ref : NULL);
}

/* The version policy; see core/policy.h. */
static inline bool hs_version_older(u32 version, u32 newest)
{
	return version < newest;
}

/* Counting. Whoever calls these has preemption off. An interrupt can not split this_cpu_inc(), on any architecture. */
static __always_inline void hs_ref_enter(struct hs_ref *ref)
{
	this_cpu_inc(ref->count->enter);
}

static __always_inline void hs_ref_exit(struct hs_ref *ref)
{
	this_cpu_inc(ref->count->exit);
}

static __always_inline void hs_ref_aborted(struct hs_ref *ref)
{
	this_cpu_inc(ref->count->aborted);
}

static __always_inline void hs_ref_failed(struct hs_ref *ref)
{
	this_cpu_inc(ref->count->enter);
	this_cpu_inc(ref->count->failed);
}

/* A look in a referenced edition's table: none of its code runs. */
static __always_inline int hs_ref_look(struct hs_ref *ref, struct hs_call *call)
{
	call->version = ref->version;
	call->identity = ref->identity;
	call->result = ref->edition->table[call->arg % HS_TABLE_LEN];
	return 0;
}

/* What a slot's call asks of a referenced edition, and who answered. */
static __always_inline int hs_ref_call(struct hs_ref *ref, const struct hs_slot *slot, struct hs_call *call)
{
	if (call->op == HS_OP_LOOKUP)
		return hs_ref_look(ref, call);
	call->version = ref->version;
	call->identity = ref->identity;
	return ref->call[slot->entry](ref->edition, call);
}

/* No edition stands behind the slot. */
static __always_inline int hs_slot_empty(struct hs_slot *slot)
{
	this_cpu_inc(*slot->empty);
	return -ENODEV;
}

/* One call, from any context. */
static __always_inline int hs_dispatch(struct hs_slot *slot, struct hs_call *call)
{
	return slot->call(slot, call);
}

/*
 * The same for a caller with a recovery routine: when the edition leaves its call's recovery to its caller, the caller
 * calls again, and finds the new edition in the module table.
 */
static __always_inline int hs_dispatch_recovering(struct hs_slot *slot, struct hs_call *call)
{
	int err;

	while ((err = hs_dispatch(slot, call)) == -ERESTART)
		call->recovered++;
	return err;
}

/*
 * Calls that belong together. Without transactions, what hs_round_call() finds is what any call finds.
 * Context: any, as the mechanism's.
 */
static __always_inline int hs_round_begin(struct hs_round *round)
{
	return round->slot->mechanism->begin ? round->slot->mechanism->begin(round) : 0;
}

static __always_inline void hs_round_end(struct hs_round *round)
{
	if (round->slot->mechanism->end)
		round->slot->mechanism->end(round);
}

/* @slot: the round's slot or its mate */
static __always_inline int hs_round_call(struct hs_round *round, struct hs_slot *slot, struct hs_call *call)
{
	if (round->slot->mechanism->join)
		return round->slot->mechanism->join(round, slot, call);
	return hs_dispatch_recovering(slot, call);
}

/* A piece of text, for the stack check. */
struct hs_stack_range {
	unsigned long base;
	unsigned long size;
};

/* table.c */
struct hs_slot *hs_slot_get(const char *name);
void hs_slot_put(struct hs_slot *slot);
void hs_mechanism_register(struct hs_mechanism *mechanism);
void hs_mechanism_unregister(struct hs_mechanism *mechanism);
int hs_slot_drain(struct hs_ctl_drain *drain);
int hs_slot_publish(const char *name);

/* show.c */
__printf(1, 2) int hs_impossible(const char *format, ...);
void hs_reason_show(struct seq_file *seq);
int hs_slot_info(struct hs_ctl_info *info);
int hs_slot_ask(const struct hs_mechanism *mech, struct hs_ctl_ask *ask);
void hs_table_show(struct seq_file *seq, bool counts);

/* ref.c */
struct hs_ref *hs_ref_new(struct hs_slot *slot, struct hs_edition *edition);
void hs_ref_sum(const struct hs_ref *ref, struct hs_count *sum);
long hs_ref_outstanding(const struct hs_ref *ref);
void hs_ref_gone(struct hs_ref *ref);
void hs_ref_free(struct hs_ref *ref);
void hs_ref_show(struct seq_file *seq, const struct hs_ref *ref, bool counts);
void __percpu *hs_alloc_percpu(size_t size);
void hs_free_percpu(void __percpu *memory);
s64 hs_memory_held(void);
void hs_memory_show(struct seq_file *seq);

/* stack.c */
int hs_stack_end(unsigned long place);
void hs_stack_forget(unsigned long place);
int hs_stack_check(const struct hs_stack_range *text, char who[TASK_COMM_LEN]);
int hs_stack_wait(const struct hs_stack_range *text, unsigned int timeout_ms);

/* restart.c */
void hs_nested_show(struct seq_file *seq);
void hs_ref_revoke(struct hs_ref *ref);

/* object.c */
void hs_objects_transform(const struct hs_ref *ref);
void hs_objects_show(struct seq_file *seq);

/* source.c */
int hs_source_register(struct hs_source *source);
void hs_source_unregister(struct hs_source *source);
u32 hs_source_call(struct hs_source *source, struct hs_round *round, u32 op);
int hs_sources_start(void);
void hs_sources_stop(void);
u64 hs_sources_progress(void);
u32 hs_sources_number(void);
void hs_sources_phase(u32 phase);
void hs_sources_show(struct seq_file *seq);

/* stall.c */
int hs_stall_init(void);
void hs_stall_exit(void);
void hs_stall_start(void);
void hs_stall_stop(void);
void hs_stall_show(struct seq_file *seq);

/* race.c */
void hs_race_show(struct seq_file *seq);

#endif /* HS_CORE_H */
