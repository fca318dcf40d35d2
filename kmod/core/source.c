// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: where calls come from.
 *
 * Purpose: interrupt sources make calls, check each result and record it as a user thread would; this is the code they
 * share, and the list that the statistics walk.
 */

#include <linux/mutex.h>
#include <linux/ktime.h>
#include "core.h"

static ulong seed = 1;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "of the interrupt sources' arguments");

/* Guards sources and running. Never taken by a handler. */
static DEFINE_MUTEX(source_lock);
static LIST_HEAD(sources);
static bool running;
static u32 phase;

/**
 * hs_source_register - add a source of calls
 * @source: name, slot, and either start and stop or totals are set
 *
 * Context: process, may sleep. Return: 0, -EBUSY while the sources run, or -ENOMEM.
 */
int hs_source_register(struct hs_source *source)
{
	int err = -EBUSY;

	mutex_lock(&source_lock);
	if (running)
		goto out;
	if (source->start) {
		err = -ENOMEM;
		source->rec = hs_zalloc(sizeof(*source->rec));
		if (!source->rec)
			goto out;
		source->rec->gap_floor_ns = HS_GAP_FLOOR_NS;
		source->random = hs_mix(hs_hash(source->name), seed) | 1;
	}
	list_add_tail(&source->node, &sources);
	err = 0;
out:
	mutex_unlock(&source_lock);
	return err;
}
EXPORT_SYMBOL_GPL(hs_source_register);

/**
 * hs_source_unregister - take a source away, stopped first if it runs
 * @source: what was registered
 *
 * Context: process, may sleep.
 */
void hs_source_unregister(struct hs_source *source)
{
	mutex_lock(&source_lock);
	if (running && source->stop)
		source->stop(source);
	list_del(&source->node);
	hs_free(source->rec);
	source->rec = NULL;
	mutex_unlock(&source_lock);
}
EXPORT_SYMBOL_GPL(hs_source_unregister);

/**
 * hs_source_call - one call from an interrupt source: made, timed, checked, recorded
 * @source: nobody else is in this function for the same source
 * @round: what the call belongs to, or NULL
 * @op: enum hs_op
 *
 * Context: any; never sleeps. Return: the version that answered, 0 if none did.
 */
u32 hs_source_call(struct hs_source *source, struct hs_round *round, u32 op)
{
	struct hs_slot *slot = op == HS_OP_SEAL ? source->slot->mate : source->slot;
	struct hs_recorder *rec = source->rec;
	struct hs_call call = { .arg = hs_random(&source->random), .op = op };
	u64 start, end;
	bool right;
	int err;

	rec->issued++;
	start = ktime_get_ns();
	err = round ? hs_round_call(round, slot, &call) : hs_dispatch_recovering(slot, &call);
	end = ktime_get_ns();
	rec->retried += call.retried;
	rec->recovered += call.recovered;
	if (err) {
		rec->failed++;
		return 0;
	}
	right = call.result == hs_expected(call.identity, call.version, op, call.arg);
	hs_record_done(rec, READ_ONCE(phase), start, end, op == HS_OP_SEAL, call.version, right);
	return call.version;
}
EXPORT_SYMBOL_GPL(hs_source_call);

/* HS_CTL_STOP. Context: process, may sleep; returns when no source is in flight. */
void hs_sources_stop(void)
{
	struct hs_source *source;

	mutex_lock(&source_lock);
	if (running)
		list_for_each_entry(source, &sources, node)
			if (source->stop)
				source->stop(source);
	if (running)
		hs_stall_stop();
	running = false;
	mutex_unlock(&source_lock);
}

/* HS_CTL_START. Context: process, may sleep. Return: 0, -EBUSY if they run, or what the one that failed said. */
int hs_sources_start(void)
{
	struct hs_source *source;
	int err = 0;

	mutex_lock(&source_lock);
	if (running)
		err = -EBUSY;
	else
		list_for_each_entry(source, &sources, node) {
			err = source->start ? source->start(source) : 0;
			if (err)
				break;
		}
	if (err && err != -EBUSY)
		list_for_each_entry_continue_reverse(source, &sources, node)
			if (source->stop)
				source->stop(source);
	running |= !err;
	if (!err)
		hs_stall_start();
	mutex_unlock(&source_lock);
	return err;
}

/* HS_CTL_PHASE. */
void hs_sources_phase(u32 now)
{
	WRITE_ONCE(phase, now);
}

/* HS_CTL_PROGRESS: calls completed by all interrupt sources. */
u64 hs_sources_progress(void)
{
	struct hs_source *source;
	u64 sum = 0;

	mutex_lock(&source_lock);
	list_for_each_entry(source, &sources, node)
		if (source->rec)
			sum += READ_ONCE(source->rec->completed);
	mutex_unlock(&source_lock);
	return sum;
}

/* HS_CTL_SOURCES: how many interrupt sources there are. */
u32 hs_sources_number(void)
{
	struct hs_source *source;
	u32 number = 0;

	mutex_lock(&source_lock);
	list_for_each_entry(source, &sources, node)
		number += !!source->rec;
	mutex_unlock(&source_lock);
	return number;
}

static void show_source(struct seq_file *seq, struct hs_source *source)
{
	u64 issued, completed, failed;

	seq_printf(seq, "{\"name\":\"%s\",", source->name);
	if (source->rec) {
		seq_printf(seq, "\"raised\":%llu,\"handled\":%llu,\"overruns\":%llu,",
			   source->raised, source->handled, source->overruns);
		hs_recorder_json(seq_printf, seq, source->rec);
	} else {
		source->totals(source, &issued, &completed, &failed);
		seq_printf(seq, "\"issued\":%llu,\"completed\":%llu,\"failed\":%llu", issued, completed, failed);
	}
	if (source->show)
		source->show(source, seq);
	seq_puts(seq, "}");
}

void hs_sources_show(struct seq_file *seq)
{
	const char *separator = "";
	struct hs_source *source;

	mutex_lock(&source_lock);
	seq_puts(seq, "\"sources\":[");
	list_for_each_entry(source, &sources, node) {
		seq_puts(seq, separator);
		show_source(seq, source);
		separator = ",";
	}
	seq_puts(seq, "]");
	mutex_unlock(&source_lock);
}
