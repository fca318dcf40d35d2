// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap load: system calls.
 *
 * Purpose: /dev/hotswap, where each HS_CALL ioctl is one reference to slot "calc" from process context: a call of the
 * edition's function, or a look in its table (a data resource, read under the same kind of reference).
 *
 * Usage: insmod hs_load.ko from=syscall, then ./hs-load --load syscall
 */

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/uaccess.h>
#include "../core/core.h"

static struct hs_slot *dev_slot;

struct dev_count {
	unsigned long issued, completed, failed;
};
static DEFINE_PER_CPU(struct dev_count, dev_count);

static int look_up(struct hs_call *call)
{
	struct hs_ref *ref = dev_slot->mechanism->get(dev_slot);

	if (!ref)
		return -ENODEV;
	call->version = ref->version;
	call->identity = ref->identity;
	call->result = ref->edition->table[call->arg % HS_TABLE_LEN];
	dev_slot->mechanism->put(ref);
	return 0;
}

static long dev_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct hs_call __user *user = (void __user *)arg;
	struct hs_call call;
	int err;

	if (command != HS_CALL)
		return -ENOTTY;
	if (copy_from_user(&call, user, sizeof(call)))
		return -EFAULT;
	if (call.op >= HS_OP_NR || call.stay >= HS_STAY_NR || call.stay_us > HS_STAY_MAX_US ||
	    (call.stay_us && call.op != HS_OP_CALC))
		return -EINVAL;
	call.retried = call.recovered = 0;
	this_cpu_inc(dev_count.issued);
	err = call.op == HS_OP_LOOKUP ? look_up(&call) : hs_dispatch_recovering(dev_slot, &call);
	if (err)
		this_cpu_inc(dev_count.failed);
	else
		this_cpu_inc(dev_count.completed);
	return copy_to_user(user, &call, sizeof(call)) ? -EFAULT : err;
}

static void dev_totals(struct hs_source *source, u64 *issued, u64 *completed, u64 *failed)
{
	int cpu;

	*issued = *completed = *failed = 0;
	for_each_possible_cpu(cpu) {
		*issued += per_cpu(dev_count.issued, cpu);
		*completed += per_cpu(dev_count.completed, cpu);
		*failed += per_cpu(dev_count.failed, cpu);
	}
}

static const struct file_operations dev_fops = {
	.owner = THIS_MODULE,
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
