// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap load: exceptions.
 *
 * Purpose: /dev/hotswap-fault, where each page fault of a mapping is one reference to slot "calc", taken in the fault's
 * own path with the mmap or VMA lock held. Its argument is the place of the page, hs_mix(offset in pages, 0). The
 * answer lies in a fresh page that is mapped read-only where the fault was. A call that fails is an answer as well: the
 * fault succeeds, and its page says with what error. madvise(MADV_DONTNEED) drops a page, and the next touch faults
 * again.
 *
 * A touch makes exactly one call if nobody else touches the same page at the same time: two faults side by side both
 * make theirs, and one of the pages is thrown away. So each caller maps a range of its own. The kernel retries a fault
 * only before it has asked for the page, never after.
 *
 * Usage: insmod hs_load.ko from=exception, then ./hs-load --load exception
 */

#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include "../compat.h"
#include "../core/core.h"
#include "tally.h"

static struct hs_slot *fault_slot;
static DEFINE_PER_CPU(struct hs_tally, fault_tally);

/* The slot's answer to one fault. A macro where a mutant may put another. */
#ifndef HS_FAULT_DISPATCH
#define HS_FAULT_DISPATCH(call) hs_dispatch_recovering(fault_slot, call)
#endif

/* Context: process, may sleep, with the lock of the mapping held: a call here must not wait for its caller's others. */
static void fault_call(u64 offset, struct hs_answer *answer)
{
	*answer = (struct hs_answer) { .call.arg = hs_mix(offset, 0), .calls = 1 };
	this_cpu_inc(fault_tally.issued);
	answer->err = HS_FAULT_DISPATCH(&answer->call);
	if (answer->err)
		this_cpu_inc(fault_tally.failed);
	else
		this_cpu_inc(fault_tally.completed);
}

static vm_fault_t fault_fault(struct vm_fault *vmf)
{
	struct page *page = alloc_page(GFP_HIGHUSER | __GFP_ZERO);
	struct hs_answer *answer;

	if (!page)
		return VM_FAULT_OOM;
	answer = kmap_local_page(page);
	fault_call(vmf->pgoff, answer);
	kunmap_local(answer);
	vmf->page = page;
	return 0;
}

static const struct vm_operations_struct fault_vm_ops = {
	.fault = fault_fault,
};

static int fault_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (vma->vm_flags & VM_WRITE)
		return -EACCES;
	vm_flags_mod(vma, VM_DONTEXPAND | VM_DONTCOPY | VM_DONTDUMP, VM_MAYWRITE);
	vma->vm_ops = &fault_vm_ops;
	return 0;
}

static void fault_totals(struct hs_source *source, u64 *issued, u64 *completed, u64 *failed)
{
	hs_tally_sum(&fault_tally, issued, completed, failed);
}

static const struct file_operations fault_fops = {
	.owner = THIS_MODULE,
	.mmap = fault_mmap,
};

static struct miscdevice fault_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hotswap-fault",
	.mode = 0444,
	.fops = &fault_fops,
};

static struct hs_source fault_source = {
	.name = "exception",
	.totals = fault_totals,
};

static int fault_init(void)
{
	int err;

	fault_slot = hs_slot_get(HS_CALC_SLOT);
	if (IS_ERR(fault_slot))
		return PTR_ERR(fault_slot);
	fault_source.slot = fault_slot;
	err = hs_source_register(&fault_source);
	if (err)
		goto put_slot;
	err = misc_register(&fault_device);
	if (err)
		goto unregister_source;
	return 0;

unregister_source:
	hs_source_unregister(&fault_source);
put_slot:
	hs_slot_put(fault_slot);
	return err;
}

/* A mapping holds the file and so the module: no fault is in flight here. */
static void fault_exit(void)
{
	misc_deregister(&fault_device);
	hs_source_unregister(&fault_source);
	hs_slot_put(fault_slot);
}
