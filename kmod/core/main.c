// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: the control device and what debugfs shows.
 *
 * Purpose: /dev/hotswap-ctl for the swapper, /sys/kernel/debug/hotswap/{state,stats,race,reason} for eyes and tests.
 *
 * Usage: insmod hs_core.ko mechanism=refcount seed=7
 *	  cat /sys/kernel/debug/hotswap/stats
 */

#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/uaccess.h>
#include "core.h"

/* The mechanisms, one file or folder each in mechanisms/; upstream's in peers/. */
static struct hs_mechanism * const mechanism_list[] = {
	&refcount, &reload, &invalidate, &adaptive, &transaction, &livepatch,
};

static long ctl_ask(void __user *user)
{
	struct hs_ctl_ask ask = { };
	int i, err = -EOPNOTSUPP;

	if (copy_from_user(ask.slot, user, sizeof(ask.slot)))
		return -EFAULT;
	ask.slot[HS_NAME_LEN - 1] = 0;
	for (i = 0; err == -EOPNOTSUPP && i < ARRAY_SIZE(mechanism_list); i++)
		if (mechanism_list[i]->ask && READ_ONCE(mechanism_list[i]->slots))
			err = hs_slot_ask(mechanism_list[i], &ask);
	if (!err && copy_to_user(user, &ask, sizeof(ask)))
		return -EFAULT;
	return err;
}

static long ctl_drain(void __user *user)
{
	struct hs_ctl_drain drain;
	long err;

	if (copy_from_user(&drain, user, sizeof(drain)))
		return -EFAULT;
	drain.slot[HS_NAME_LEN - 1] = 0;
	err = hs_slot_drain(&drain);
	if (!err && copy_to_user(user, &drain, sizeof(drain)))
		return -EFAULT;
	return err;
}

static long ctl_info(void __user *user)
{
	struct hs_ctl_info info;
	long err;

	if (copy_from_user(&info, user, sizeof(info)))
		return -EFAULT;
	info.slot[HS_NAME_LEN - 1] = 0;
	err = hs_slot_info(&info);
	if (!err && copy_to_user(user, &info, sizeof(info)))
		return -EFAULT;
	return err;
}

static long ctl_publish(void __user *user)
{
	struct hs_ctl_publish publish;

	if (copy_from_user(&publish, user, sizeof(publish)))
		return -EFAULT;
	publish.slot[HS_NAME_LEN - 1] = 0;
	return hs_slot_publish(publish.slot);
}

static long ctl_phase(u32 __user *user)
{
	u32 phase;

	if (get_user(phase, user))
		return -EFAULT;
	if (phase > HS_STOP)
		return -EINVAL;
	hs_sources_phase(phase);
	return 0;
}

static long ctl_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	void __user *user = (void __user *)arg;

	switch (command) {
	case HS_CTL_INFO:
		return ctl_info(user);
	case HS_CTL_DRAIN:
		return ctl_drain(user);
	case HS_CTL_ASK:
		return ctl_ask(user);
	case HS_CTL_PUBLISH:
		return ctl_publish(user);
	case HS_CTL_PHASE:
		return ctl_phase(user);
	case HS_CTL_START:
		return hs_sources_start();
	case HS_CTL_STOP:
		hs_sources_stop();
		return 0;
	case HS_CTL_PROGRESS:
		return put_user(hs_sources_progress(), (u64 __user *)user);
	case HS_CTL_SOURCES:
		return put_user(hs_sources_number(), (u32 __user *)user);
	}
	return -ENOTTY;
}

static const struct file_operations ctl_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = ctl_ioctl,
};

static struct miscdevice ctl_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hotswap-ctl",
	.mode = 0600,
	.fops = &ctl_fops,
};

static int state_show(struct seq_file *seq, void *unused)
{
	seq_puts(seq, "{");
	hs_table_show(seq, false);
	seq_printf(seq, ",\"allocations\":%lld}\n", hs_memory_held());
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(state);

static int stats_show(struct seq_file *seq, void *unused)
{
	seq_puts(seq, "{");
	hs_table_show(seq, true);
	seq_puts(seq, ",");
	hs_sources_show(seq);
	seq_puts(seq, ",");
	hs_nested_show(seq);
	seq_puts(seq, ",");
	hs_stall_show(seq);
	seq_puts(seq, ",");
	hs_memory_show(seq);
	/* Nothing here hangs on a kprobe, so there is nothing to miss: a hook by ftrace is never skipped. */
	seq_puts(seq, ",\"nmissed\":null}\n");
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int race_show(struct seq_file *seq, void *unused)
{
	hs_race_show(seq);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(race);

static int reason_show(struct seq_file *seq, void *unused)
{
	hs_reason_show(seq);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(reason);

static struct dentry *folder;

static int __init core_init(void)
{
	int i, err;

	err = hs_stall_init();
	if (err)
		return err;
	err = misc_register(&ctl_device);
	if (err) {
		hs_stall_exit();
		return err;
	}
	for (i = 0; i < ARRAY_SIZE(mechanism_list); i++)
		hs_mechanism_register(mechanism_list[i]);
	folder = debugfs_create_dir("hotswap", NULL);
	debugfs_create_file("state", 0400, folder, NULL, &state_fops);
	debugfs_create_file("stats", 0400, folder, NULL, &stats_fops);
	debugfs_create_file("race", 0400, folder, NULL, &race_fops);
	debugfs_create_file("reason", 0400, folder, NULL, &reason_fops);
	return 0;
}
module_init(core_init);

/* Every slot, edition and source holds this module, and so does every open file. */
static void __exit core_exit(void)
{
	int i;

	debugfs_remove(folder);
	for (i = 0; i < ARRAY_SIZE(mechanism_list); i++)
		hs_mechanism_unregister(mechanism_list[i]);
	misc_deregister(&ctl_device);
	hs_stall_exit();
}
module_exit(core_exit);

MODULE_DESCRIPTION("hotswap: slots, reference records, mechanisms, control device");
MODULE_LICENSE("GPL");
