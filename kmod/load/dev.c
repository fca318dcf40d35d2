// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap load: system calls.
 *
 * Purpose: /dev/hotswap, where each HS_CALL ioctl is one reference to slot "calc" from process context: a call of the
 * edition's function, or a look in its table (a data resource, read under the same kind of reference). The calls of one open
 * file between HS_BEGIN and HS_END are one transaction, for mechanisms that have them.
 *
 * Usage: insmod hs_load.ko from=syscall, then ./hs-load --load syscall
 */

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "../core/core.h"
#include "tally.h"

static struct hs_slot *dev_slot;

static DEFINE_PER_CPU(struct hs_tally, dev_tally);

/* struct dev_file - an open file: the calls of one who calls, and the transaction they may belong to */
struct dev_file {
	struct mutex lock;	/* guards the rest; a transaction's calls come one at a time */
	unsigned int depth;	/* transactions begun and not ended: the outermost one counts */
	struct hs_round round;
};

#define DEV_DEPTH_MAX	1000

/* An open transaction can hold an update up, so not everybody may begin one. */
static int dev_begin(struct dev_file *self)
{
	int err = 0;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (mutex_lock_killable(&self->lock))
		return -EINTR;
	if (!self->depth) {
		self->round = (struct hs_round) { .slot = dev_slot, .flags = HS_CALL_MAY_WAIT };
		err = hs_round_begin(&self->round);
	} else if (self->depth == DEV_DEPTH_MAX) {
		err = -EBUSY;
	}
	if (!err)
		WRITE_ONCE(self->depth, self->depth + 1);
	mutex_unlock(&self->lock);
	return err;
}

static int dev_end(struct dev_file *self)
{
	int err = -EINVAL;

	if (mutex_lock_killable(&self->lock))
		return -EINTR;
	if (self->depth) {
		WRITE_ONCE(self->depth, self->depth - 1);
		if (!self->depth)
			hs_round_end(&self->round);
		err = 0;
	}
	mutex_unlock(&self->lock);
	return err;
}

/* The call is counted when nothing is in its way any more but the slot. */
static int dev_call(struct dev_file *self, struct hs_call *call)
{
	struct hs_slot *slot = call->op == HS_OP_SEAL ? dev_slot->mate : dev_slot;
	bool together = READ_ONCE(self->depth);
	int err;

	if (together && mutex_lock_killable(&self->lock))
		return -EINTR;
	this_cpu_inc(dev_tally.issued);
	if (together && self->depth)
		err = hs_round_call(&self->round, slot, call);
	else
		err = hs_dispatch_recovering(slot, call);
	if (together)
		mutex_unlock(&self->lock);
	if (err)
		this_cpu_inc(dev_tally.failed);
	else
		this_cpu_inc(dev_tally.completed);
	return err;
}

static long dev_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct hs_call __user *user = (void __user *)arg;
	struct dev_file *self = file->private_data;
	struct hs_call call;
	int err;

	if (command == HS_BEGIN)
		return dev_begin(self);
	if (command == HS_END)
		return dev_end(self);
	if (command != HS_CALL)
		return -ENOTTY;
	if (copy_from_user(&call, user, sizeof(call)))
		return -EFAULT;
	if (call.op >= HS_OP_NR || call.stay >= HS_STAY_NR || call.stay_us > HS_STAY_MAX_US ||
	    (call.stay_us && call.op != HS_OP_CALC))
		return -EINVAL;
	call.retried = call.recovered = call.denied = 0;
	call.flags = HS_CALL_MAY_WAIT;
	err = dev_call(self, &call);
	return copy_to_user(user, &call, sizeof(call)) ? -EFAULT : err;
}

static int dev_open(struct inode *inode, struct file *file)
{
	struct dev_file *self = kzalloc(sizeof(*self), GFP_KERNEL_ACCOUNT);

	if (!self)
		return -ENOMEM;
	mutex_init(&self->lock);
	file->private_data = self;
	return 0;
}

/* Of a process that died in the middle of a transaction, too. Nobody else has the file any more. */
static int dev_release(struct inode *inode, struct file *file)
{
	struct dev_file *self = file->private_data;

	if (self->depth)
		hs_round_end(&self->round);
	kfree(self);
	return 0;
}

static void dev_totals(struct hs_source *source, u64 *issued, u64 *completed, u64 *failed)
{
	hs_tally_sum(&dev_tally, issued, completed, failed);
}

static const struct file_operations dev_fops = {
	.owner = THIS_MODULE,
	.open = dev_open,
	.release = dev_release,
	.unlocked_ioctl = dev_ioctl,
};

static struct miscdevice dev_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hotswap",
	.mode = 0666,
	.fops = &dev_fops,
};

static struct hs_source dev_source = {
	.name = "syscall",
	.totals = dev_totals,
};

static int dev_init(void)
{
	int err;

	dev_slot = hs_slot_get(HS_CALC_SLOT);
	if (IS_ERR(dev_slot))
		return PTR_ERR(dev_slot);
	dev_source.slot = dev_slot;
	err = hs_source_register(&dev_source);
	if (err)
		goto put_slot;
	err = misc_register(&dev_device);
	if (err)
		goto unregister_source;
	return 0;

unregister_source:
	hs_source_unregister(&dev_source);
put_slot:
	hs_slot_put(dev_slot);
	return err;
}

/* An open file holds the module, so no call is in flight here. */
static void dev_exit(void)
{
	misc_deregister(&dev_device);
	hs_source_unregister(&dev_source);
	hs_slot_put(dev_slot);
}
