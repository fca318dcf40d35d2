/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hotswap mechanism: invalidate - a call that can be cut off, x86_64.
 *
 * Usage: int hs_guard_call(struct hs_guard *guard, call function, self, call)
 *
 * The registers that a function keeps for its caller are saved on the stack before the edition is entered. A fault in
 * the edition's invalidated text continues at hs_guard_landing with rsp = guard->sp and eax = HS_AGAIN: as if the edition had
 * returned that.
 */
#include <linux/linkage.h>
#include <asm/nospec-branch.h>
#include "guard.h"

SYM_FUNC_START(hs_guard_call)
	pushq	%rbp
	movq	%rsp, %rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	subq	$8, %rsp
	movq	%rsp, (%rdi)
	movq	%rsi, %r11
	movq	%rdx, %rdi
	movq	%rcx, %rsi
	CALL_NOSPEC r11
SYM_INNER_LABEL(hs_guard_landing, SYM_L_GLOBAL)
	ENDBR	/* the fault may have come with the CPU still waiting for one, at the edition's first instruction */
	addq	$8, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	RET
SYM_FUNC_END(hs_guard_call)

/* Where the hooked fault function continues instead of its own body: it returns at once. */
SYM_FUNC_START(hs_guard_return)
	RET
SYM_FUNC_END(hs_guard_return)

	.section .note.GNU-stack, "", %progbits
