// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: reference records and the memory they take.
 *
 * Purpose: one counter per edition, each CPU with its own share. A reference may be taken on one CPU and dropped on
 * another, so only the sum over all possible CPUs means anything. The shares only ever rise; once nobody can enter any
 * more, (sum of enter) is fixed, and reading it equal to (sum of exit) can not be an accident of the reading order.
 */

#include <linux/mm.h>
#include <linux/slab.h>
#include "../compat.h"
#include "core.h"

static atomic64_t allocated, freed;

/**
 * hs_zalloc - zeroed memory that the lab asks back
 * @size: bytes
 *
 * Editions, mechanisms and loads allocate with this, so that a leak shows in the statistics.
 *
 * Context: process, may sleep. Return: the memory, or NULL.
 */
void *hs_zalloc(size_t size)
{
	void *memory = kvzalloc(size, GFP_KERNEL);

	if (memory)
		atomic64_inc(&allocated);
	return memory;
}
EXPORT_SYMBOL_GPL(hs_zalloc);

/**
 * hs_free - give back what hs_zalloc() gave
 * @memory: may be NULL
 *
 * Context: process, may sleep.
 */
void hs_free(void *memory)
{
	if (memory)
		atomic64_inc(&freed);
	kvfree(memory);
}
EXPORT_SYMBOL_GPL(hs_free);

/* Context: process, may sleep. Return: zeroed per-CPU memory that is counted like hs_zalloc()'s, or NULL. */
void __percpu *hs_alloc_percpu(size_t size)
{
	void __percpu *memory = __alloc_percpu(size, sizeof(long));

	if (memory)
		atomic64_inc(&allocated);
	return memory;
}

void hs_free_percpu(void __percpu *memory)
{
	if (memory)
		atomic64_inc(&freed);
	free_percpu(memory);
}

/* Allocations not yet given back. */
s64 hs_memory_held(void)
{
	return atomic64_read(&allocated) - atomic64_read(&freed);
}

void hs_memory_show(struct seq_file *seq)
{
	seq_printf(seq, "\"memory\":{\"allocated\":%lld,\"freed\":%lld}",
		   atomic64_read(&allocated), atomic64_read(&freed));
}

/* Context: process, may sleep. Return: a record for @edition, counters at zero, in no list; or NULL. */
struct hs_ref *hs_ref_new(struct hs_slot *slot, struct hs_edition *edition)
{
	struct hs_ref *ref = hs_zalloc(sizeof(*ref));
	unsigned int size;

	if (!ref)
		return NULL;
	ref->count = hs_alloc_percpu(sizeof(struct hs_count));
	if (!ref->count) {
		hs_free(ref);
		return NULL;
	}
	ref->edition = edition;
	ref->call[0] = edition->call;
	ref->call[1] = edition->mate_call;
	ref->version = edition->version;
	ref->identity = edition->identity;
	ref->restart = edition->restart;
	init_swait_queue_head(&ref->drained);
	init_swait_queue_head(&ref->asleep);
	ref->slot = slot;
	INIT_LIST_HEAD(&ref->node);
	strscpy(ref->name, edition->name, sizeof(ref->name));
	strscpy(ref->module, module_name(edition->owner), sizeof(ref->module));
	hs_module_text(edition->owner, &ref->text, &size);
	return ref;
}

void hs_ref_free(struct hs_ref *ref)
{
	hs_free_percpu(ref->count);
	hs_free(ref);
}

/*
 * Ends are read before exits, and both before enters: a sum taken while calls run may show too many references, never too
 * few, also where an open transaction may enter again and again.
 */
void hs_ref_sum(const struct hs_ref *ref, struct hs_count *sum)
{
	const struct hs_count *count;
	int cpu;

	*sum = ref->total;
	if (!ref->count)
		return;
	for_each_possible_cpu(cpu)
		sum->ended += READ_ONCE(per_cpu_ptr(ref->count, cpu)->ended);
	smp_rmb(); /* pairs with who counts the end of a transaction */
	for_each_possible_cpu(cpu) {
		count = per_cpu_ptr(ref->count, cpu);
		sum->exit += READ_ONCE(count->exit);
		sum->failed += READ_ONCE(count->failed);
		sum->aborted += READ_ONCE(count->aborted);
		sum->committed += READ_ONCE(count->committed);
		sum->settled += READ_ONCE(count->settled);
	}
	smp_rmb(); /* what ends before enters; orders this function's reads only */
	for_each_possible_cpu(cpu) {
		sum->enter += READ_ONCE(per_cpu_ptr(ref->count, cpu)->enter);
		sum->begun += READ_ONCE(per_cpu_ptr(ref->count, cpu)->begun);
	}
}

/**
 * hs_ref_outstanding - references taken and not yet dropped, transactions begun and not yet ended
 * @ref: the record
 *
 * Exact once no new reference can be taken and a grace period has passed since; an upper bound before.
 *
 * Context: any. Return: their number.
 */
long hs_ref_outstanding(const struct hs_ref *ref)
{
	struct hs_count sum;

	hs_ref_sum(ref, &sum);
	return sum.enter - sum.exit - sum.failed - sum.aborted + sum.begun - sum.ended;
}
EXPORT_SYMBOL_GPL(hs_ref_outstanding);

/*
 * The last reference is dropped and a grace period has passed since: nobody looks at the counters again.
 * Context: process, hs_lock held.
 */
void hs_ref_gone(struct hs_ref *ref)
{
	struct hs_count sum;

	hs_ref_sum(ref, &sum);
	hs_free_percpu(ref->count);
	ref->count = NULL;
	ref->total = sum;
	ref->state = HS_GONE;
	ref->edition = NULL;
	memset(ref->call, 0, sizeof(ref->call));
}

/* One edition as JSON; without @counts only what a refused registration must leave as it was. */
void hs_ref_show(struct seq_file *seq, const struct hs_ref *ref, bool counts)
{
	static const char * const states[] = { "live", "retired", "gone" };
	const struct hs_count *count;
	const char *separator = "";
	struct hs_count sum;
	int cpu;

	seq_printf(seq, "{\"slot\":\"%s\",\"name\":\"%s\",\"module\":\"%s\",\"version\":%u,\"identity\":%u,",
		   ref->slot->name, ref->name, ref->module, ref->version, ref->identity);
	seq_printf(seq, "\"state\":\"%s\"", states[ref->state]);
	if (counts) {
		hs_ref_sum(ref, &sum);
		seq_printf(seq, ",\"issued\":%lu,\"completed\":%lu,\"failed\":%lu,\"aborted\":%lu,",
			   sum.enter, sum.exit, sum.failed, sum.aborted);
		if (ref->restart == HS_COMMIT)
			seq_printf(seq, "\"committed\":%lu,\"settled\":%lu,", sum.committed, sum.settled);
		seq_puts(seq, "\"refs\":[");
		for_each_possible_cpu(cpu) {
			if (!ref->count)
				break;
			count = per_cpu_ptr(ref->count, cpu);
			seq_printf(seq, "%s%ld", separator, (long)(READ_ONCE(count->enter) -
				   READ_ONCE(count->exit) - READ_ONCE(count->failed) -
				   READ_ONCE(count->aborted)));
			separator = ",";
		}
		seq_printf(seq, "],\"refs_sum\":%ld", (long)(sum.enter - sum.exit - sum.failed - sum.aborted));
	}
	seq_puts(seq, "}");
}
