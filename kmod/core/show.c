// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: what the module table shows of itself.
 *
 * Purpose: the swapper's view of a slot, and the table as JSON for debugfs.
 */

#include <linux/mutex.h>
#include "core.h"

/* Why this kernel can not do the mechanism; written once, before anybody asks. */
static char impossible_reason[200];

/**
 * hs_impossible - say why this kernel or hardware can not do a mechanism
 * @format: the reason, for the kernel log and for who asked for the mechanism
 *
 * Context: process; a mechanism's init. Return: -EOPNOTSUPP, for it to return.
 */
int hs_impossible(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(impossible_reason, sizeof(impossible_reason), format, arguments);
	va_end(arguments);
	pr_err("%s\n", impossible_reason);
	return -EOPNOTSUPP;
}
EXPORT_SYMBOL_GPL(hs_impossible);

void hs_reason_show(struct seq_file *seq)
{
	seq_printf(seq, "%s\n", impossible_reason);
}

/* HS_CTL_INFO. Context: process, may sleep. Return: 0 or -ENOENT. */
int hs_slot_info(struct hs_ctl_info *info)
{
	struct hs_slot *slot;
	struct hs_ref *ref;
	int err = -ENOENT;

	mutex_lock(&hs_lock);
	slot = find_slot(info->slot);
	if (slot) {
		*info = (struct hs_ctl_info) { };
		strscpy(info->slot, slot->name, sizeof(info->slot));
		strscpy(info->mechanism, slot->mechanism->name, sizeof(info->mechanism));
		info->order = slot->mechanism->order;
		info->newest = slot->newest;
		info->swaps = slot->swaps;
		info->layout = slot->layout.number;
		info->transforms = slot->mechanism->transforms;
		info->publish_ns = slot->publish_ns;
		if (slot->ref) {
			strscpy(info->edition, slot->ref->name, sizeof(info->edition));
			strscpy(info->module, slot->ref->module, sizeof(info->module));
			info->version = slot->ref->version;
		}
		list_for_each_entry(ref, &slot->refs, node)
			info->live += ref->state == HS_LIVE;
		if (slot->retiring)
			strscpy(info->retiring, slot->retiring->module, sizeof(info->retiring));
		err = 0;
	}
	mutex_unlock(&hs_lock);
	return err;
}

/*
 * HS_CTL_ASK. While an update waits for transactions it has the table's lock: then who they are is all that can be told.
 * Context: process, may sleep. Return: 0 or -ENOENT.
 */
int hs_slot_ask(const struct hs_mechanism *mech, struct hs_ctl_ask *ask)
{
	struct hs_slot *slot;

	mech->ask(ask);
	ask->swapping = 1;
	if (!mutex_trylock(&hs_lock))
		return 0;
	slot = find_slot(ask->slot);
	if (slot) {
		ask->swapping = !!slot->retiring;
		ask->in_flight = slot->ref ? hs_ref_outstanding(slot->ref) : 0;
	}
	mutex_unlock(&hs_lock);
	return slot ? 0 : -ENOENT;
}

static unsigned long count_empty(const struct hs_slot *slot)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(slot->empty, cpu));
	return sum;
}

/* The table as JSON members; without @counts only what a refused registration must leave as it was. */
void hs_table_show(struct seq_file *seq, bool counts)
{
	unsigned long empty = 0;
	struct hs_mechanism *mech;
	const char *separator = "";
	struct hs_slot *slot;
	struct hs_ref *ref;

	mutex_lock(&hs_lock);
	seq_printf(seq, "\"mechanism\":\"%s\",\"slots\":[", mechanism);
	list_for_each_entry(slot, &slots, node) {
		ref = slot->ref;
		seq_printf(seq, "%s{\"name\":\"%s\",\"edition\":\"%s\",\"version\":%u,\"newest\":%u,\"swaps\":%u,"
			   "\"held\":\"%s\"}", separator, slot->name, ref ? ref->name : "", ref ? ref->version : 0,
			   slot->newest, slot->swaps, slot->held ? slot->held->name : "");
		separator = ",";
		empty += count_empty(slot);
	}
	seq_puts(seq, "],\"editions\":[");
	separator = "";
	list_for_each_entry(slot, &slots, node) {
		list_for_each_entry(ref, &slot->refs, node) {
			seq_puts(seq, separator);
			hs_ref_show(seq, ref, counts);
			separator = ",";
		}
	}
	seq_puts(seq, "]");
	if (counts) {
		seq_printf(seq, ",\"empty\":{\"failed\":%lu}", empty);
		list_for_each_entry(mech, &mechanisms, node)
			if (mech->slots && mech->show) {
				seq_puts(seq, ",");
				mech->show(seq);
			}
	}
	mutex_unlock(&hs_lock);
}
