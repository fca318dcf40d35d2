// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mechanism: invalidate - the fault path.
 *
 * Purpose: a fetch from an edition's invalidated text does not end in an oops but at the landing of the call's recovery
 * record: this is the error that "Isolating operating system in-memory modules using error injection" injects.
 *
 * The kernel has no hook there, so one of its functions is redirected by ftrace (IPMODIFY: it has one owner): on x86
 * fixup_exception(), which every kernel-mode fault passes that nobody else could explain; on arm64 do_mem_abort(), the
 * first that gets a fault, because what comes after it may take the task's mmap lock or sleep. For faults of ours it returns at once, with the saved registers changed; all others go their way.
 * ftrace and not a kprobe: a kprobe is skipped while another one runs on that CPU, and a skip would be an oops.
 */

#include <linux/ftrace.h>
#include <asm/ptrace.h>
#ifdef CONFIG_ARM64
#include <asm/esr.h>
#else
#include <asm/insn.h>
#include <asm/trapnr.h>
#include <asm/trap_pf.h>
#endif
#include "guard.h"

/* Faults that ended at a landing: aborted calls, and probes. Each CPU's own. */
static DEFINE_PER_CPU(unsigned long, fault_aborts);
static DEFINE_PER_CPU(unsigned long, fault_probes);

/*
 * The interrupted context continues at the landing, with interrupts as they were at the call.
 * A macro where a mutant may put another.
 */
#ifndef HS_LANDING_FLAGS
#define HS_LANDING_FLAGS(guard) ((guard)->flags)
#endif

#ifdef CONFIG_ARM64
#define HS_FAULT_FUNCTION "do_mem_abort"

static __always_inline void land(struct pt_regs *regs, const struct hs_guard *guard)
{
	regs->pc = (unsigned long)hs_guard_landing;
	regs->regs[0] = (u32)HS_AGAIN;
	regs->regs[9] = guard->sp;
	regs->pstate &= ~(PSR_BTYPE_MASK | PSR_D_BIT | PSR_A_BIT | PSR_I_BIT | PSR_F_BIT);
	regs->pstate |= HS_LANDING_FLAGS(guard) & (PSR_D_BIT | PSR_A_BIT | PSR_I_BIT | PSR_F_BIT);
}

/* do_mem_abort(far, esr, regs) */
static __always_inline struct pt_regs *fetch_fault(const unsigned long arguments[4])
{
	return ESR_ELx_EC(arguments[1]) == ESR_ELx_EC_IABT_CUR ? (struct pt_regs *)arguments[2] : NULL;
}
#else
#define HS_FAULT_FUNCTION "fixup_exception"

static __always_inline void land(struct pt_regs *regs, const struct hs_guard *guard)
{
	regs->ip = (unsigned long)hs_guard_landing;
	regs->ax = (u32)HS_AGAIN;
	regs->sp = guard->sp;
	regs->flags = HS_LANDING_FLAGS(guard);
}

/*
 * fixup_exception(regs, trapnr, error_code, fault_addr). Without NX the error code does not tell fetches: the address does.
 * An instruction may reach into a page that this CPU already finds cut.
 */
static __always_inline struct pt_regs *fetch_fault(const unsigned long arguments[4])
{
	struct pt_regs *regs = (struct pt_regs *)arguments[0];

	return (int)arguments[1] == X86_TRAP_PF && arguments[3] - regs->ip < MAX_INSN_SIZE ? regs : NULL;
}
#endif

/* Context: the fault's, any. Return: whether the fault was ours; its registers then continue at the landing. */
static notrace bool contain(const unsigned long arguments[4])
{
	struct pt_regs *regs = fetch_fault(arguments);
	struct hs_guard *guard;

	if (!regs || user_mode(regs))
		return false;
	guard = guard_of_fault(instruction_pointer(regs), kernel_stack_pointer(regs));
	if (!guard)
		return false;
	if (guard->probe)
		this_cpu_inc(fault_probes);
	else
		this_cpu_inc(fault_aborts);
	land(regs, guard);
	return true;
}

/* The hook: registers of the redirected function's own call are in @fregs. */
static notrace void on_fault(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	unsigned long arguments[4];
	int i;

#ifdef CONFIG_DYNAMIC_FTRACE_WITH_REGS
	struct pt_regs *own = ftrace_get_regs(fregs);

	for (i = 0; i < 4; i++)
		arguments[i] = regs_get_kernel_argument(own, i);
	if (!contain(arguments))
		return;
	regs_set_return_value(own, 1);	/* fixup_exception() says: mended */
	instruction_pointer_set(own, (unsigned long)hs_guard_return);
#else
	for (i = 0; i < 4; i++)
		arguments[i] = ftrace_regs_get_argument(fregs, i);
	if (contain(arguments))
		ftrace_regs_set_instruction_pointer(fregs, (unsigned long)hs_guard_return);
#endif
}

static struct ftrace_ops fault_ops;

/* Context: process, may sleep. Return: 0; -EBUSY if somebody else redirects that function; what ftrace says. */
static int fault_init(void)
{
	int err;

	/* Anew each time: kernels up to 6.12 leave a freed filter in it. */
	fault_ops = (struct ftrace_ops) {
		.func = on_fault,
		.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT
#ifdef CONFIG_DYNAMIC_FTRACE_WITH_REGS
			 | FTRACE_OPS_FL_SAVE_REGS
#endif
	};
	err = ftrace_set_filter(&fault_ops, HS_FAULT_FUNCTION, strlen(HS_FAULT_FUNCTION), 1);
	if (!err)
		err = register_ftrace_function(&fault_ops);
	if (err) {
		ftrace_free_filter(&fault_ops);
		pr_err("invalidate: cannot redirect " HS_FAULT_FUNCTION ": error %d\n", err);
	}
	return err;
}

/* Context: process, may sleep; no text is cut any more. */
static void fault_exit(void)
{
	/* If ftrace has given up on itself, the hook stays, and so must its code. */
	if (WARN_ON(unregister_ftrace_function(&fault_ops)))
		__module_get(THIS_MODULE);
	ftrace_free_filter(&fault_ops);
}

static unsigned long sum_faults(unsigned long __percpu *counter)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(counter, cpu));
	return sum;
}
