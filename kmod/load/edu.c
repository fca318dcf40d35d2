// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap load: interrupts of QEMU's edu PCI device.
 *
 * Purpose: real device interrupts (MSI) that call slot "calc" from the hard interrupt handler. A thread raises one and
 * waits until the handler has had it before it raises the next, so raised and handled can be compared one by one.
 * One in four has a bottom half, a work item: the two are one round of calls, begun in the top half.
 *
 * Usage: qemu ... -device edu; insmod hs_load.ko from=edu
 */

#include <linux/completion.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/pci.h>
#include <linux/workqueue.h>
#include "../core/core.h"

#define EDU_STATUS	0x24	/* which interrupts are raised */
#define EDU_RAISE	0x60
#define EDU_ACKNOWLEDGE	0x64
#define EDU_BOTTOM_HALF	4	/* one interrupt in so many has one */
#define EDU_LATE_MS	100	/* look at the device when the handler takes longer */
#define EDU_LOST_LOOKS	300	/* and give a raised interrupt up after so many looks */

struct edu {
	struct hs_source source;
	struct pci_dev *pci;
	void __iomem *bar;
	int irq;
	struct completion handled;
	struct task_struct *thread;
	struct work_struct bottom_half;
	struct hs_round round;	/* from the top half to the end of the bottom half */
	bool in_round;		/* an interrupt that was given up for lost may come beside the next */
	u32 version;		/* that answered the top half; 0: nobody */
};

/* The device would not raise another interrupt while the last one stands. */
static inline void edu_acknowledge(struct edu *edu, u32 status)
{
	iowrite32(status, edu->bar + EDU_ACKNOWLEDGE);
}

static void edu_handled(struct edu *edu)
{
	WRITE_ONCE(edu->source.handled, edu->source.handled + 1);
	complete(&edu->handled);
}

static void edu_bottom_half(struct work_struct *work)
{
	struct edu *edu = container_of(work, struct edu, bottom_half);
	struct hs_recorder *rec = edu->source.rec;
	u32 version = hs_source_call(&edu->source, &edu->round, HS_OP_SEAL);

	hs_round_end(&edu->round);
	smp_store_release(&edu->in_round, false); /* the next interrupt may fill it in again */
	if (version && edu->version) {
		rec->rounds++;
		rec->torn += version != edu->version;
	}
	edu_handled(edu);
}

/* One interrupt, served by the edition behind the slot; the producer waits for the bottom half, if it has one. */
static inline void edu_serve(struct edu *edu)
{
	bool whole = edu->source.raised % EDU_BOTTOM_HALF == 0 && !smp_load_acquire(&edu->in_round);

	if (whole) {
		edu->round = (struct hs_round) { .slot = edu->source.slot, .who = "edu" };
		whole = !hs_round_begin(&edu->round);
	}
	if (!whole) {
		hs_source_call(&edu->source, NULL, HS_OP_CALC);
		edu_handled(edu);
		return;
	}
	edu->in_round = true;
	edu->version = hs_source_call(&edu->source, &edu->round, HS_OP_CALC);
	schedule_work(&edu->bottom_half);
}

static irqreturn_t edu_interrupt(int irq, void *data)
{
	struct edu *edu = data;
	u32 status = ioread32(edu->bar + EDU_STATUS);

	if (!status)
		return IRQ_NONE;
	edu_acknowledge(edu, status);
	edu_serve(edu);
	return IRQ_HANDLED;
}

/*
 * Wait for the handler. It is lost when the device says it was acknowledged and the handler, no longer running on any
 * CPU, did not complete; or when the device still has it after EDU_LOST_LOOKS looks. Then raised > handled.
 */
static void edu_wait(struct edu *edu)
{
	int looks;

	for (looks = 0; looks < EDU_LOST_LOOKS; looks++) {
		if (wait_for_completion_timeout(&edu->handled, msecs_to_jiffies(EDU_LATE_MS)))
			return;
		if (ioread32(edu->bar + EDU_STATUS))
			continue;
		synchronize_irq(edu->irq);
		flush_work(&edu->bottom_half);
		try_wait_for_completion(&edu->handled);
		return;
	}
}

static int edu_produce(void *data)
{
	struct edu *edu = data;

	while (!kthread_should_stop()) {
		edu->source.raised++;
		iowrite32(1, edu->bar + EDU_RAISE);
		edu_wait(edu);
		cond_resched_tasks_rcu_qs();	/* where the handler runs at once, on this CPU, the wait never sleeps */
	}
	return 0;
}

static int edu_start(struct hs_source *source)
{
	struct edu *edu = container_of(source, struct edu, source);
	struct task_struct *thread;

	thread = kthread_run(edu_produce, edu, "hs_edu");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	edu->thread = thread;
	return 0;
}

static void edu_stop(struct hs_source *source)
{
	struct edu *edu = container_of(source, struct edu, source);

	kthread_stop(edu->thread);
	synchronize_irq(edu->irq);
	flush_work(&edu->bottom_half);
}

static int edu_claim(struct edu *edu)
{
	int err;

	err = pcim_enable_device(edu->pci);
	if (err)
		return err;
	err = pcim_iomap_regions(edu->pci, BIT(0), KBUILD_MODNAME);
	if (err)
		return err;
	edu->bar = pcim_iomap_table(edu->pci)[0];
	pci_set_master(edu->pci);
	err = pci_alloc_irq_vectors(edu->pci, 1, 1, PCI_IRQ_MSI);
	if (err < 0)
		return err;
	edu->irq = pci_irq_vector(edu->pci, 0);
	edu_acknowledge(edu, ~0);
	return 0;
}

static int edu_probe(struct pci_dev *pci, const struct pci_device_id *id)
{
	struct edu *edu = hs_zalloc(sizeof(*edu));
	int err = -ENOMEM;

	if (!edu)
		return err;
	edu->pci = pci;
	init_completion(&edu->handled);
	INIT_WORK(&edu->bottom_half, edu_bottom_half);
	edu->source.name = "edu";
	edu->source.start = edu_start;
	edu->source.stop = edu_stop;
	err = edu_claim(edu);
	if (err)
		goto free;
	edu->source.slot = hs_slot_get(HS_CALC_SLOT);
	err = PTR_ERR_OR_ZERO(edu->source.slot);
	if (err)
		goto free_vectors;
	err = request_irq(edu->irq, edu_interrupt, 0, KBUILD_MODNAME, edu);
	if (err)
		goto put_slot;
	err = hs_source_register(&edu->source);
	if (err)
		goto free_irq;
	pci_set_drvdata(pci, edu);
	return 0;

free_irq:
	free_irq(edu->irq, edu);
put_slot:
	hs_slot_put(edu->source.slot);
free_vectors:
	pci_free_irq_vectors(pci);
free:
	hs_free(edu);
	return err;
}

/* The producer ends, then the handler, then what they use. */
static void edu_remove(struct pci_dev *pci)
{
	struct edu *edu = pci_get_drvdata(pci);

	hs_source_unregister(&edu->source);
	free_irq(edu->irq, edu);
	cancel_work_sync(&edu->bottom_half);
	pci_free_irq_vectors(pci);
	hs_slot_put(edu->source.slot);
	hs_free(edu);
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = "hs_edu",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
};

static int edu_init(void)
{
	return pci_register_driver(&edu_driver);
}

static void edu_exit(void)
{
	pci_unregister_driver(&edu_driver);
}
