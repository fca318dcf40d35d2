/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hotswap mechanism: invalidate - page protection, x86_64.
 *
 * Purpose: make an edition's pages non-executable, or not present where the CPU has no NX bit, and have every CPU forget
 * what it knew of them.
 *
 * The kernel's own set_memory_nx() flushes by an interrupt, so a CPU that spins in the old text with interrupts off
 * would hold the swap up for as long as it likes. Here the page table entries are changed in place and the other CPUs
 * flush in an NMI: such a CPU is cut off as quickly as any other. That wants 4 KiB entries; where a kernel keeps module
 * text in 2 MiB pages, these are split before the swap.
 */
#ifndef HS_TEXT_X86_H
#define HS_TEXT_X86_H

#include <linux/cpu.h>
#include <linux/mutex.h>
#include <linux/static_call.h>
#include <asm/apic.h>
#include <asm/nmi.h>
#include <asm/pgtable.h>
#include <asm/tlbflush.h>
#include "../../core/hook.h"
#include "guard.h"

static int split_nothing(unsigned long base, int pages)
{
	return -EOPNOTSUPP;
}

/* set_memory_4k(), which is not exported; a static call, since kernels with IBT do not let it be called by pointer. */
DEFINE_STATIC_CALL(hs_split, split_nothing);

/* Which flush each CPU did last, and which is wanted. */
static DEFINE_PER_CPU(unsigned long, flush_done);
static unsigned long flush_wanted;
static DEFINE_MUTEX(flush_lock);	/* one at a time, for two slots may drain at once */

/* Everything, global entries and all address spaces included: writing CR4 with PGE changed does that. */
static __always_inline void flush_this_cpu(void)
{
	unsigned long flags, cr4;

	raw_local_irq_save(flags);
	asm volatile("mov %%cr4, %0" : "=r" (cr4) : : "memory");
	asm volatile("mov %0, %%cr4" : : "r" (cr4 ^ X86_CR4_PGE) : "memory");
	asm volatile("mov %0, %%cr4" : : "r" (cr4) : "memory");
	raw_local_irq_restore(flags);
}

static notrace int flush_in_nmi(unsigned int type, struct pt_regs *regs)
{
	unsigned long wanted = smp_load_acquire(&flush_wanted);

	if (this_cpu_read(flush_done) == wanted)
		return NMI_DONE;
	flush_this_cpu();
	smp_store_release(this_cpu_ptr(&flush_done), wanted);
	return NMI_HANDLED;
}

#ifndef HS_FLUSH_OTHER
#define HS_FLUSH_OTHER(cpu) apic->send_IPI_mask(cpumask_of(cpu), NMI_VECTOR)
#endif

/* Context: process, may sleep. Returns when no CPU has an older translation. */
static void flush_every_cpu(void)
{
	unsigned long wanted;
	int cpu, self;

	mutex_lock(&flush_lock);
	wanted = flush_wanted + 1;
	cpus_read_lock();	/* a CPU that comes up knows nothing */
	self = get_cpu();
	for_each_online_cpu(cpu)
		if (per_cpu(flush_done, cpu) != flush_wanted)
			per_cpu(flush_done, cpu) = flush_wanted;	/* was away */
	smp_store_release(&flush_wanted, wanted);
	flush_this_cpu();
	per_cpu(flush_done, self) = wanted;
	for_each_online_cpu(cpu)
		if (cpu != self)
			HS_FLUSH_OTHER(cpu);
	for_each_online_cpu(cpu)
		while (smp_load_acquire(&per_cpu(flush_done, cpu)) != wanted)
			cpu_relax();
	put_cpu();
	cpus_read_unlock();
	mutex_unlock(&flush_lock);
}

/* Whether @text stands in entries of its own, split now if need be. Context: process, may sleep. Return: 0 or -errno. */
static int text_prepare(const struct hs_text *text)
{
	unsigned int i, level;

	for (i = 0; i < text->pages; i++) {
		if (!lookup_address(text->base + i * PAGE_SIZE, &level))
			return -EFAULT;
		if (level != PG_LEVEL_4K)
			return static_call(hs_split)(text->base, text->pages);
	}
	return 0;
}

static bool by_nx(void)
{
	return boot_cpu_has(X86_FEATURE_NX) && !invalidate_unmap;
}

static int change_entries(const struct hs_text *text, bool cut)
{
	const pteval_t bit = by_nx() ? _PAGE_NX : _PAGE_PRESENT;
	unsigned int i, level;
	pteval_t value;
	pte_t *entry;

	for (i = 0; i < text->pages; i++) {	/* all or nothing */
		entry = lookup_address(text->base + i * PAGE_SIZE, &level);
		if (!entry || level != PG_LEVEL_4K)
			return -EAGAIN;
	}
	for (i = 0; i < text->pages; i++) {
		entry = lookup_address(text->base + i * PAGE_SIZE, &level);
		value = pte_val(*entry);
		set_pte(entry, __pte(cut == by_nx() ? value | bit : value & ~bit));
	}
	return 0;
}

/* No CPU executes @text from the return on. Context: process, may sleep. Return: 0 or -errno. */
static int text_cut(const struct hs_text *text)
{
	int err = change_entries(text, true);

	if (!err)
		flush_every_cpu();
	return err;
}

/* Undo it. A CPU that still has the old entry takes one fault, which the kernel knows to be spurious. */
static int text_mend(const struct hs_text *text)
{
	return change_entries(text, false);
}

static int text_init(void)
{
	unsigned long split = hs_find_symbol("set_memory_4k");

	if (split)
		static_call_update(hs_split, (void *)split);
	return register_nmi_handler(NMI_LOCAL, flush_in_nmi, 0, "hotswap");
}

static void text_exit(void)
{
	unregister_nmi_handler(NMI_LOCAL, "hotswap");
}

#endif /* HS_TEXT_X86_H */
