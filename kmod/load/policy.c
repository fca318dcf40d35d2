// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap load: opens of files, which an edition allows or denies.
 *
 * Purpose: access control as a thing that is swapped. security_file_open(), where the kernel asks its security modules,
 * is redirected; for files directly in the one directory that user space names, the edition behind slot "calc" is asked
 * first, by the file's label, and decides by its policy. Only what it lets pass is asked of the kernel's own security
 * modules. Where nobody stands behind the slot nothing is mediated: that is what an unloaded security module does.
 *
 * open(2) says only yes or no. Who decided is what HS_POLICY_LAST tells each task of its own last open, so that callers
 * check and count what they check and count of any call.
 *
 * Usage: insmod hs_load.ko from=policy, then ./hs-load --load policy
 */

#include <linux/atomic.h>
#include <linux/dcache.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/path.h>
#include <linux/rculist.h>
#include <linux/rcupdate.h>
#include <linux/security.h>
#include <linux/static_call.h>
#include <linux/uaccess.h>
#include "../compat.h"
#include "../core/core.h"
#include "../core/hook.h"
#include "tally.h"

static struct hs_slot *policy_slot;
static DEFINE_PER_CPU(struct hs_tally, policy_tally);
static DEFINE_PER_CPU(unsigned long, policy_denied);

/* Tasks in policy_open(): the original may sleep, and returns into this module. */
static atomic_t policy_inside;

/* Guards policy_path and every change of policy_list. Never taken by the open of a file. */
static DEFINE_MUTEX(policy_lock);
static struct path policy_path;
static LIST_HEAD(policy_list);

/* policy_path's directory, NULL while none is watched. Only compared, so no lock: it is held while it stands here. */
static struct dentry *policy_directory;

/**
 * struct policy_watcher - a task that learns who decided about its opens
 * @task:	who; NULL before HS_POLICY_WATCH
 * @last:	its last open's call; written and read by that task alone
 * @node:	in policy_list
 */
struct policy_watcher {
	struct task_struct *task;
	struct hs_answer last;
	struct list_head node;
};

DEFINE_STATIC_CALL_NULL(policy_original, security_file_open);

/* The task's own watcher, NULL if it has none. Context: process, in an RCU read section. */
static struct policy_watcher *policy_watcher_of(const struct task_struct *task)
{
	struct policy_watcher *watcher;

	list_for_each_entry_rcu(watcher, &policy_list, node)
		if (watcher->task == task)
			return watcher;
	return NULL;
}

static void policy_tell(const struct hs_call *call, int err)
{
	struct policy_watcher *watcher;

	rcu_read_lock();
	watcher = policy_watcher_of(current);
	if (watcher) {
		watcher->last.call = *call;
		watcher->last.err = err;
		watcher->last.calls++;
	}
	rcu_read_unlock();
}

/* A file's label: what policies know it by. */
static u64 policy_label(struct dentry *dentry)
{
	struct name_snapshot snapshot;
	u64 label;

	take_dentry_name_snapshot(&snapshot, dentry);
	label = hs_hash(snapshot.name.name);
	release_dentry_name_snapshot(&snapshot);
	return label;
}

/* Context: process. Return: 0 to let the open pass, -EACCES if the edition denies it, or why it could not be asked. */
static int policy_ask(struct dentry *dentry)
{
	struct hs_call call = { .arg = policy_label(dentry), .op = HS_OP_OPEN, .flags = HS_CALL_MAY_WAIT };
	int err;

	this_cpu_inc(policy_tally.issued);
	err = hs_dispatch_recovering(policy_slot, &call);
	policy_tell(&call, err);
	if (err) {
		this_cpu_inc(policy_tally.failed);
		return err == -ENODEV ? 0 : err;
	}
	this_cpu_inc(policy_tally.completed);
	if (!call.denied)
		return 0;
	this_cpu_inc(policy_denied);
	return -EACCES;
}

/* Stands in for security_file_open(). */
static int policy_open(struct file *file)
{
	struct dentry *dentry = file->f_path.dentry, *directory;
	int err = 0;

	atomic_inc(&policy_inside);
	directory = READ_ONCE(policy_directory);
	if (directory && READ_ONCE(dentry->d_parent) == directory)
		err = policy_ask(dentry);
	if (!err)
		err = static_call(policy_original)(file);
	/* Not a tail call: what it returns to tells the hook whose call it is. */
	atomic_dec(&policy_inside);
	return err;
}

static struct hs_hook policy_hook = {
	.function = "security_file_open",
	.to = policy_open,
	.owner = THIS_MODULE,
};

/* Context: process. Return: 0; -ENOTDIR; -EBUSY if another directory is watched, or this file watches one. */
static int policy_watch(struct policy_watcher *self, int number)
{
	struct fd folder = fdget(number);
	int err = -EBADF;

	if (!fd_file(folder))
		return err;
	mutex_lock(&policy_lock);
	err = -ENOTDIR;
	if (!d_is_dir(fd_file(folder)->f_path.dentry))
		goto out;
	err = -EBUSY;
	if (self->task || (policy_directory && policy_directory != fd_file(folder)->f_path.dentry))
		goto out;
	if (!policy_directory) {
		policy_path = fd_file(folder)->f_path;
		path_get(&policy_path);
		WRITE_ONCE(policy_directory, policy_path.dentry);
	}
	self->task = current;
	list_add_tail_rcu(&self->node, &policy_list);
	err = 0;
out:
	mutex_unlock(&policy_lock);
	fdput(folder);
	return err;
}

static long policy_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct policy_watcher *self = file->private_data;
	void __user *user = (void __user *)arg;
	s32 number;

	switch (command) {
	case HS_POLICY_WATCH:
		return get_user(number, (s32 __user *)user) ? -EFAULT : policy_watch(self, number);
	case HS_POLICY_LAST:
		if (self->task != current)
			return -EPERM;
		if (copy_to_user(user, &self->last, sizeof(self->last)))
			return -EFAULT;
		self->last = (struct hs_answer) { };
		return 0;
	}
	return -ENOTTY;
}

static int policy_device_open(struct inode *inode, struct file *file)
{
	struct policy_watcher *self = hs_zalloc(sizeof(*self));

	if (!self)
		return -ENOMEM;
	file->private_data = self;
	return 0;
}

static int policy_device_release(struct inode *inode, struct file *file)
{
	struct policy_watcher *self = file->private_data;
	struct path done = { };

	mutex_lock(&policy_lock);
	if (self->task)
		list_del_rcu(&self->node);
	if (self->task && list_empty(&policy_list)) {
		WRITE_ONCE(policy_directory, NULL);
		done = policy_path;
	}
	mutex_unlock(&policy_lock);
	synchronize_rcu();	/* nobody looks at the watcher */
	path_put(&done);
	hs_free(self);
	return 0;
}

static void policy_totals(struct hs_source *source, u64 *issued, u64 *completed, u64 *failed)
{
	hs_tally_sum(&policy_tally, issued, completed, failed);
}

static void policy_show(struct hs_source *source, struct seq_file *seq)
{
	u64 denied = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		denied += per_cpu(policy_denied, cpu);
	seq_printf(seq, ",\"denied\":%llu", denied);
}

static const struct file_operations policy_fops = {
	.owner = THIS_MODULE,
	.open = policy_device_open,
	.release = policy_device_release,
	.unlocked_ioctl = policy_ioctl,
};

static struct miscdevice policy_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hotswap-policy",
	.mode = 0600,
	.fops = &policy_fops,
};

static struct hs_source policy_source = {
	.name = "policy",
	.totals = policy_totals,
	.show = policy_show,
};

/* Nobody is in policy_open() any more, its last instruction included. Context: process, the hook is removed. */
static void policy_wait_outside(void)
{
	while (atomic_read(&policy_inside))
		msleep(1);
	synchronize_rcu_tasks();	/* who has counted itself out is on its way to its return */
}

/* The original is known before the first open can want it. */
static int policy_hook_install(void)
{
	void *original = (void *)hs_find_symbol(policy_hook.function);

	if (!original)
		return -ENOENT;
	static_call_update(policy_original, original);
	return hs_hook_install(&policy_hook);
}

static int policy_init(void)
{
	int err;

	policy_slot = hs_slot_get(HS_CALC_SLOT);
	if (IS_ERR(policy_slot))
		return PTR_ERR(policy_slot);
	policy_source.slot = policy_slot;
	err = hs_source_register(&policy_source);
	if (err)
		goto put_slot;
	err = policy_hook_install();
	if (err)
		goto unregister_source;
	err = misc_register(&policy_device);
	if (err)
		goto remove_hook;
	return 0;

remove_hook:
	hs_hook_remove(&policy_hook);
	policy_wait_outside();
unregister_source:
	hs_source_unregister(&policy_source);
put_slot:
	hs_slot_put(policy_slot);
	return err;
}

/* An open file of the device holds the module, so no directory is watched. */
static void policy_exit(void)
{
	misc_deregister(&policy_device);
	hs_hook_remove(&policy_hook);
	policy_wait_outside();
	hs_source_unregister(&policy_source);
	hs_slot_put(policy_slot);
}
