/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hotswap mechanism: invalidate - a call that can be cut off, arm64.
 *
 * Usage: int hs_guard_call(struct hs_guard *guard, call function, self, call)
 *
 * The registers that a function keeps for its caller are saved on the stack before the edition is entered. An exception
 * return to EL1 does not load sp from the saved registers, so a fault in the edition's invalidated text continues at
 * hs_guard_landing with x9 = guard->sp and w0 = HS_AGAIN, and from there as if the edition had returned that.
 */
#include <linux/linkage.h>
#include "guard.h"

SYM_FUNC_START(hs_guard_call)
	stp	x29, x30, [sp, #-96]!
	mov	x29, sp
	stp	x19, x20, [sp, #16]
	stp	x21, x22, [sp, #32]
	stp	x23, x24, [sp, #48]
	stp	x25, x26, [sp, #64]
	stp	x27, x28, [sp, #80]
	mov	x9, sp
	str	x9, [x0]
	mov	x9, x1
	mov	x0, x2
	mov	x1, x3
	blr	x9
.Lreturned:
	ldp	x19, x20, [sp, #16]
	ldp	x21, x22, [sp, #32]
	ldp	x23, x24, [sp, #48]
	ldp	x25, x26, [sp, #64]
	ldp	x27, x28, [sp, #80]
	ldp	x29, x30, [sp], #96
	ret
SYM_FUNC_END(hs_guard_call)

SYM_FUNC_START(hs_guard_landing)
	mov	sp, x9
	b	.Lreturned
SYM_FUNC_END(hs_guard_landing)

/* Where the hooked fault function continues instead of its own body: it returns at once. */
SYM_FUNC_START(hs_guard_return)
	ret
SYM_FUNC_END(hs_guard_return)

	.section .note.GNU-stack, "", %progbits
