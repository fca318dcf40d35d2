// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: who is in a piece of text, by the stacks of all tasks.
 *
 * Purpose: before text is freed, look whether any task executes it or will return to it. Where calls hold references
 * this is a second opinion; where they do not (a function of the kernel, a thread's endless loop) it is the only one.
 *
 * Nobody is stopped. The text must be out of reach before the check begins: then a task that has once been seen outside
 * stays outside, and each task has to be seen only once. One that sleeps is looked at from here, and the look
 * counts if it did not run meanwhile; one that runs looks at itself, from an interrupt. Interrupts in the text, on a task's
 * back or an idle CPU's, are over after a grace period, which is the caller's to wait for.
 *
 * What it can not do: the unwinder of arm64 does not vouch for what it says, and x86's stops at code without unwind data;
 * then a frame further out is missed. So it backs the references, and does not replace them where there are any.
 */

#include <linux/delay.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/smp.h>
#include <linux/stacktrace.h>
#include "../compat.h"
#include "core.h"

#define STACK_DEPTH	64	/* frames, from the innermost */
#define STACK_LOOKS	16	/* at one task, before the whole round is made again */
#define STACK_ENDS	8

struct stack_look {
	struct task_struct *task;
	const struct hs_stack_range *text;
	int found;
	unsigned long frames[STACK_DEPTH];
};

static bool is_within(unsigned long address, const struct hs_stack_range *range)
{
	return address - range->base < range->size;
}

/* Return addresses in functions that never return: further out the stack is dead, whatever lies there now. */
static unsigned long ends[STACK_ENDS];
static DEFINE_MUTEX(ends_lock);

/**
 * hs_stack_end - who stands here never returns to its caller
 * @place: a return address that shows on the stack all the time
 *
 * Context: process, may sleep. Return: 0, or -ENOSPC.
 */
int hs_stack_end(unsigned long place)
{
	int i;

	mutex_lock(&ends_lock);
	for (i = 0; i < STACK_ENDS && ends[i]; i++)
		;
	if (i < STACK_ENDS)
		WRITE_ONCE(ends[i], place);
	mutex_unlock(&ends_lock);
	return i < STACK_ENDS ? 0 : -ENOSPC;
}
EXPORT_SYMBOL_GPL(hs_stack_end);

/**
 * hs_stack_forget - nobody stands there any more
 * @place: as for hs_stack_end()
 *
 * Context: process, may sleep.
 */
void hs_stack_forget(unsigned long place)
{
	int i;

	mutex_lock(&ends_lock);
	for (i = 0; i < STACK_ENDS; i++)
		if (ends[i] == place)
			WRITE_ONCE(ends[i], 0);
	mutex_unlock(&ends_lock);
}
EXPORT_SYMBOL_GPL(hs_stack_forget);

static bool is_end(unsigned long address)
{
	int i;

	for (i = 0; i < STACK_ENDS; i++)
		if (address && READ_ONCE(ends[i]) == address)
			return true;
	return false;
}

/* Return: -EBUSY if one of the frames is in the text, 0 if none is, -EAGAIN if there are none. */
static int judge_frames(const struct stack_look *look, unsigned int frames)
{
	unsigned int i;

	for (i = 0; i < frames; i++) {
		if (is_end(look->frames[i]))
			break;
		if (is_within(look->frames[i], look->text))
			return -EBUSY;
	}
	/* What was cut off at the depth limit says nothing of the rest. */
	return frames && (i < frames || frames < STACK_DEPTH) ? 0 : -EAGAIN;
}

/* Context: hard interrupt on the task's CPU, or where it was a moment ago. */
static void look_at_oneself(void *argument)
{
	struct stack_look *look = argument;

	if (current == look->task)
		look->found = judge_frames(look, stack_trace_save(look->frames, STACK_DEPTH, 0));
}

static unsigned long times_switched(const struct task_struct *task)
{
	return READ_ONCE(task->nvcsw) + READ_ONCE(task->nivcsw);
}

/* Context: process, in an RCU read section. Return: as judge_frames(). */
static int look_at_task(struct stack_look *look)
{
	struct task_struct *task = look->task;
	unsigned long switched;
	int looks, found;

	for (looks = 0; looks < STACK_LOOKS; looks++) {
		look->found = -EAGAIN;
		switched = times_switched(task);
		if (smp_load_acquire(&task->on_cpu)) {	/* what it did before it left the CPU is seen */
			smp_call_function_single(task_cpu(task), look_at_oneself, look, 1);
			if (look->found != -EAGAIN)
				return look->found;
			continue;
		}
		if (READ_ONCE(task->exit_state))
			return 0;	/* it ends, and never returns to any text of ours */
		smp_rmb();	/* not running, then its stack, then still not */
		found = judge_frames(look, hs_save_stack(task, look->frames, STACK_DEPTH));
		smp_rmb();
		if (found != -EAGAIN && !smp_load_acquire(&task->on_cpu) && times_switched(task) == switched)
			return found;
	}
	return -EAGAIN;
}

/**
 * hs_stack_check - whether a task is in a piece of text
 * @text: what nobody can enter any more
 * @who: name of a task that is; its size is TASK_COMM_LEN
 *
 * Context: process, may sleep; not from the text. Return: 0; -EBUSY if one is; -EAGAIN if one could not be looked at.
 */
int hs_stack_check(const struct hs_stack_range *text, char who[TASK_COMM_LEN])
{
	struct stack_look look = { .text = text };
	struct task_struct *process, *task;
	int err = 0;

	hs_save_stack_init();
	rcu_read_lock();
	for_each_process_thread(process, task) {
		look.task = task;
		err = task == current ? 0 : look_at_task(&look);
		if (err) {
			strscpy(who, task->comm, TASK_COMM_LEN);
			goto out;
		}
	}
out:
	rcu_read_unlock();
	return err;
}
EXPORT_SYMBOL_GPL(hs_stack_check);

/**
 * hs_stack_wait - the same, until nobody is
 * @text: what nobody can enter any more
 * @timeout_ms: how long
 *
 * Context: process, may sleep. Return: how often somebody was, or -ETIMEDOUT, with the last one's name in the kernel log.
 */
int hs_stack_wait(const struct hs_stack_range *text, unsigned int timeout_ms)
{
	const unsigned long until = jiffies + msecs_to_jiffies(timeout_ms);
	char who[TASK_COMM_LEN];
	int err, found = 0;

	while ((err = hs_stack_check(text, who))) {
		found += err == -EBUSY;
		if (time_after(jiffies, until)) {
			pr_info("%s %s\n", who, err == -EBUSY ? "is still in old text" : "could not be looked at");
			return -ETIMEDOUT;
		}
		usleep_range(1000, 2000);
	}
	return found;
}
EXPORT_SYMBOL_GPL(hs_stack_wait);
