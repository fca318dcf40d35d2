/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hotswap mechanism: invalidate - page protection, arm64.
 *
 * Purpose: make an edition's pages non-executable, or not valid. The kernel's own functions do it: they are not exported,
 * so they are looked for by name. The CPU broadcasts the flush, so nobody is waited for.
 */
#ifndef HS_TEXT_ARM64_H
#define HS_TEXT_ARM64_H

#include <linux/mm.h>
#include <asm/cpufeature.h>
#include "../../core/hook.h"
#include "guard.h"

static int (*memory_nx)(unsigned long base, int pages);
static int (*memory_x)(unsigned long base, int pages);
static int (*memory_valid)(unsigned long base, int pages, int valid);

static int text_prepare(const struct hs_text *text)
{
	return 0;
}

static bool by_nx(void)
{
	return !invalidate_unmap;
}

/* No CPU executes @text from the return on. Context: process, may sleep. Return: 0 or -errno. */
static int text_cut(const struct hs_text *text)
{
	return by_nx() ? memory_nx(text->base, text->pages) : memory_valid(text->base, text->pages, 0);
}

static int text_mend(const struct hs_text *text)
{
	return by_nx() ? memory_x(text->base, text->pages) : memory_valid(text->base, text->pages, 1);
}

static int text_init(void)
{
	if (system_uses_irq_prio_masking())
		return hs_impossible("invalidate: interrupts masked by priority (pseudo-NMI) are not supported");
	memory_nx = (void *)hs_find_symbol("set_memory_nx");
	memory_x = (void *)hs_find_symbol("set_memory_x");
	memory_valid = (void *)hs_find_symbol("set_memory_valid");
	if (memory_nx && memory_x && memory_valid)
		return 0;
	return hs_impossible("invalidate: this kernel has no set_memory_nx, set_memory_x or set_memory_valid");
}

static void text_exit(void)
{
}

#endif /* HS_TEXT_ARM64_H */
