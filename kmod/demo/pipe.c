// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap demonstration: two kernel threads that never end, in code that knows of no swapping.
 *
 * Purpose: what demo/swap.c swaps under their feet. Neither thread ever leaves its loop, asks whether it should stop, or
 * passes a point where it holds nothing: there is always an item on its way.
 *
 * They sleep at every turn. A function that a CPU enters all the time can not be redirected safely under multi-threaded
 * TCG on x86: a CPU has been seen to meet the breakpoint of the patching for ever, after it was long gone.
 *
 * Usage: insmod hs_pipe.ko
 *	  It can not be unloaded, since the threads run in it, until they run somewhere else.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include "pipe.h"

/* Puts one item in; false if there is no room. Traceable, as any function is. */
static noinline bool hs_pipe_produce(struct hs_pipe *pipe)
{
	struct hs_item *item = hs_pipe_room(pipe);

	if (!item)
		return false;
	hs_pipe_make(pipe, item);
	hs_pipe_put(pipe);
	return true;
}

/* Takes one out and checks it; false if there is none. */
static noinline bool hs_pipe_consume(struct hs_pipe *pipe)
{
	struct hs_item *item = hs_pipe_first(pipe);

	if (!item)
		return false;
	hs_pipe_taken(pipe, hs_pipe_open(item));
	return true;
}

static int producer(void *data)
{
	for (;;)
		usleep_range(hs_pipe_produce(data) ? 200 : 300, 400);
	return 0;	/* never */
}

static int consumer(void *data)
{
	for (;;)
		usleep_range(hs_pipe_consume(data) ? 200 : 300, 400);
	return 0;	/* never */
}

static int __init pipe_init(void)
{
	struct task_struct *ends[HS_PIPE_ENDS];
	struct hs_pipe *pipe = hs_zalloc(sizeof(*pipe));
	int i;

	if (!pipe)
		return -ENOMEM;
	pipe->owner = THIS_MODULE;
	ends[0] = kthread_create(producer, pipe, "hs_producer");
	ends[1] = kthread_create(consumer, pipe, "hs_consumer");
	for (i = 0; i < HS_PIPE_ENDS; i++) {
		if (IS_ERR(ends[i]))
			goto stop;
	}
	for (i = 0; i < HS_PIPE_ENDS; i++) {
		__module_get(THIS_MODULE);
		wake_up_process(ends[i]);
	}
	return 0;

stop:
	for (i = 0; i < HS_PIPE_ENDS; i++)
		if (!IS_ERR(ends[i]))
			kthread_stop(ends[i]);	/* it has not begun */
	hs_free(pipe);
	return -ENOMEM;
}
module_init(pipe_init);

/* The threads are elsewhere, and the pipe is theirs. */
static void __exit pipe_exit(void)
{
}
module_exit(pipe_exit);

MODULE_DESCRIPTION("hotswap demonstration: a producer and a consumer that never end");
MODULE_LICENSE("GPL");
