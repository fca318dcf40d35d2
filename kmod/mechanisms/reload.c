// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mechanism: reload, the baseline.
 *
 * Purpose: what loadable kernel modules offer by themselves: rmmod the old one, insmod the new one. Every call pins the
 * module with try_module_get(), as classic drivers do. delete_module fails with EWOULDBLOCK while a call is inside;
 * once it has set the module to GOING new calls fail, and they go on failing until the next module is LIVE. That gap is the
 * figure; nothing hides it.
 *
 * Usage: insmod hs_core.ko mechanism=reload
 *	  cat /sys/kernel/debug/hotswap-reload/modules
 *
 * Why the look-up is safe: slot->ref and the module it leads to are used with preemption off until try_module_get() has
 * succeeded. reload_leave(), called from the old module's exit, empties the slot and waits for a grace period. By then
 * delete_module has seen the module's reference count at zero and set the state to GOING, so no call is inside and none
 * can get in.
 */

#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/preempt.h>
#include <linux/ktime.h>
#include "../compat.h"
#include "../core/core.h"
#include "../core/policy.h"

/* Take a reference; NULL, counted, if there is no edition or it is going. */
static notrace struct hs_ref *reload_get(struct hs_slot *slot)
{
	struct hs_ref *ref;

	preempt_disable_notrace();
	ref = hs_slot_newest(slot);
	if (!ref) {
		hs_slot_empty(slot);
	} else {
		HS_RACE("reload.lookup");
		if (likely(try_module_get(ref->edition->owner))) {
			hs_ref_enter(ref);
		} else {
			hs_ref_failed(ref);
			ref = NULL;
		}
	}
	preempt_enable_notrace();
	return ref;
}

/* The exit is counted first: after module_put() the record may be folded at any time. */
static notrace void reload_put(struct hs_ref *ref)
{
	struct module *owner = ref->edition->owner;

	preempt_disable_notrace();
	HS_RACE("reload.return");
	hs_ref_exit(ref);
	preempt_enable_notrace();
	module_put(owner);
}

static notrace int reload_call(struct hs_slot *slot, struct hs_call *call)
{
	struct hs_ref *ref = reload_get(slot);
	int err;

	if (unlikely(!ref))
		return -ENODEV;
	err = hs_ref_call(ref, slot, call);
	reload_put(ref);
	return err;
}

/* Nothing pins an idle edition: rmmod is how it is swapped. */
static int reload_adopt(struct hs_slot *slot, struct hs_ref *ref)
{
	return 0;
}

static int reload_publish(struct hs_slot *slot, struct hs_ref *new, struct hs_ref *old)
{
	hs_slot_set(slot, new);
	return 0;
}

static void reload_leave(struct hs_slot *slot, struct hs_ref *ref)
{
	hs_slot_set(slot, NULL);
	synchronize_rcu_expedited();
}

#define EVENTS	64

/* Guards events and event_count. */
static DEFINE_MUTEX(event_lock);
static unsigned int event_count;
static struct {
	u64 ns;
	char module[HS_MODULE_LEN];
	unsigned long state;
	const void *text;
	unsigned int text_size;
} events[EVENTS];

/* The states a module goes through: COMING while it is linked and its init runs, LIVE, GOING while its exit runs. */
static int note_state(struct notifier_block *block, unsigned long state, void *data)
{
	struct module *module = data;
	unsigned int i;

	if (strncmp(module_name(module), "hs_", 3))
		return NOTIFY_DONE;
	mutex_lock(&event_lock);
	i = event_count++ % EVENTS;
	events[i].ns = ktime_get_ns();
	strscpy(events[i].module, module_name(module), sizeof(events[i].module));
	events[i].state = state;
	hs_module_text(module, &events[i].text, &events[i].text_size);
	mutex_unlock(&event_lock);
	return NOTIFY_DONE;
}

static struct notifier_block state_notifier = { .notifier_call = note_state };

static int modules_show(struct seq_file *seq, void *unused)
{
	static const char * const names[] = {
		[MODULE_STATE_LIVE] = "LIVE", [MODULE_STATE_COMING] = "COMING", [MODULE_STATE_GOING] = "GOING",
	};
	unsigned int i;

	mutex_lock(&event_lock);
	for (i = event_count > EVENTS ? event_count - EVENTS : 0; i < event_count; i++)
		seq_printf(seq, "%llu %s %s text %px %u\n", events[i % EVENTS].ns, events[i % EVENTS].module,
			   names[events[i % EVENTS].state], events[i % EVENTS].text, events[i % EVENTS].text_size);
	mutex_unlock(&event_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(modules);

static struct dentry *reload_folder;

static int reload_init(void)
{
	int err = register_module_notifier(&state_notifier);

	if (err)
		return err;
	reload_folder = debugfs_create_dir("hotswap-reload", NULL);
	debugfs_create_file("modules", 0400, reload_folder, NULL, &modules_fops);
	return 0;
}

static void reload_exit(void)
{
	debugfs_remove(reload_folder);
	unregister_module_notifier(&state_notifier);
}

static struct hs_mechanism reload = {
	.name = "reload",
	.owner = THIS_MODULE,
	.order = HS_OLD_FIRST,
	.init = reload_init,
	.exit = reload_exit,
	.call = reload_call,
	.admit = hs_policy_check,
	.adopt = reload_adopt,
	.publish = reload_publish,
	.leave = reload_leave,
};
