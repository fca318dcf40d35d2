// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap demonstration: swapping what never quiesces and was never written to be swapped.
 *
 * Purpose: slots, and so editions side by side, for functions of demo/pipe.c and of the kernel.
 *
 *	pipe	  hs_pipe_produce() and hs_pipe_consume() are a group: one item is a round, begun where it is made and
 *		  ended where it is opened, so the code that made it opens it, whichever editions come and go.
 *		  While nobody stands behind the slot, items are made the original's way.
 *	cmdline	  the kernel's cmdline_proc_show(): two editions of its own, of which one answers each read of
 *		  /proc/cmdline.
 *
 * The harder case is a loop that is never left. `echo 1 >.../parameters/move`: the functions that the threads' loops
 * call enter another loop and never come back. Then the hooks go, and when no stack shows the old module's text any
 * more, the threads' hold on it is let go and it may be unloaded. Such a thread can not return any more: it ends in place.
 *
 * Usage: insmod hs_core.ko mechanism=adaptive; insmod hs_pipe.ko; insmod hs_demo.ko of=pipe,cmdline
 *	  insmod hs_ed_fnv.ko slot=pipe version=1
 *	  cat /sys/module/hs_demo/parameters/figures
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/static_call.h>
#include "../compat.h"
#include "../core/hook.h"
#include "pipe.h"

static char *of = "pipe,cmdline";
module_param(of, charp, 0444);
MODULE_PARM_DESC(of, "what to swap: pipe, cmdline");

static uint timeout_ms = 30000;
module_param(timeout_ms, uint, 0444);
MODULE_PARM_DESC(timeout_ms, "how long to wait for threads to move, and for stacks to be left");

static struct hs_slot *pipe_slot, *cmdline_slot;

/* The threads and their state, once one has come by; and what became of them. */
static struct hs_pipe *the_pipe;
static DEFINE_MUTEX(move_lock);
static bool moving, moved, ending;
static atomic_t inside;
static struct completion ended[HS_PIPE_ENDS];
static unsigned long endless[HS_PIPE_ENDS];

/* One item made by whichever edition this round finds. */
static notrace bool produce(struct hs_pipe *pipe)
{
	struct hs_item *item = hs_pipe_room(pipe);
	struct hs_call call = { .arg = pipe->produced };

	if (!item)
		return false;
	item->round = (struct hs_round) { .slot = pipe_slot, .who = "pipe" };
	if (hs_round_begin(&item->round) || hs_round_call(&item->round, pipe_slot, &call)) {
		hs_pipe_make(pipe, item);
	} else {
		item->arg = call.arg;
		item->made = call.result;
		item->version = call.version;
	}
	hs_pipe_put(pipe);
	return true;
}

/* Opened by the edition that made it, whose two functions say the same as it of the argument. */
static notrace bool open_item(struct hs_pipe *pipe, struct hs_item *item)
{
	struct hs_call call = { .arg = item->arg, .op = HS_OP_SEAL };
	int err = hs_round_call(&item->round, pipe_slot->mate, &call);

	hs_round_end(&item->round);
	pipe->swapped++;
	return !err && call.version == item->version &&
	       item->made == hs_expected(call.identity, call.version, HS_OP_CALC, item->arg) &&
	       call.result == hs_expected(call.identity, call.version, HS_OP_SEAL, item->arg);
}

static notrace bool consume(struct hs_pipe *pipe)
{
	struct hs_item *item = hs_pipe_first(pipe);

	if (!item)
		return false;
	hs_pipe_taken(pipe, item->round.slot ? open_item(pipe, item) : hs_pipe_open(item));
	return true;
}

static bool (* const step_of[HS_PIPE_ENDS])(struct hs_pipe *pipe) = { produce, consume };

/* One turn of the loop. Its caller's only call, so where it returns to is how the loop shows on a stack. */
static noinline notrace void turn(struct hs_pipe *pipe, unsigned int end)
{
	if (!endless[end]) {
		endless[end] = (unsigned long)__builtin_return_address(0);
		WARN_ON(hs_stack_end(endless[end]));
		atomic_inc(&inside);
	}
	if (READ_ONCE(ending))
		kthread_complete_and_exit(&ended[end], 0);
	usleep_range(step_of[end](pipe) ? 200 : 300, 400);
}

/* The new loops: entered once by each thread, never left. Two, so that each has a place of its own. */
static noinline notrace void produce_for_ever(struct hs_pipe *pipe)
{
	for (;;) {
		turn(pipe, 0);
		barrier();
	}
}

static noinline notrace void consume_for_ever(struct hs_pipe *pipe)
{
	for (;;) {
		turn(pipe, 1);
		barrier();
	}
}

/* What runs in place of hs_pipe_produce() and hs_pipe_consume(). */
static notrace bool instead_of_produce(struct hs_pipe *pipe)
{
	WRITE_ONCE(the_pipe, pipe);
	if (READ_ONCE(moving))
		produce_for_ever(pipe);
	return produce(pipe);
}

static notrace bool instead_of_consume(struct hs_pipe *pipe)
{
	if (READ_ONCE(moving))
		consume_for_ever(pipe);
	return consume(pipe);
}

/* The consumer first: it understands items of either kind. */
static struct hs_hook pipe_hooks[HS_PIPE_ENDS] = {
	{ .function = "hs_pipe:hs_pipe_consume", .to = instead_of_consume },
	{ .function = "hs_pipe:hs_pipe_produce", .to = instead_of_produce },
};

static void text_of(struct module *module, struct hs_stack_range *text)
{
	const void *base;
	unsigned int size;

	hs_module_text(module, &base, &size);
	*text = (struct hs_stack_range) { (unsigned long)base, size };
}

/* Both threads into the new loops, and the old module free. Context: process, may sleep. Return: 0 or -errno. */
static int move_threads(void)
{
	const unsigned long until = jiffies + msecs_to_jiffies(timeout_ms);
	struct hs_stack_range old;
	int i, found;

	if (!pipe_slot || !READ_ONCE(the_pipe))
		return -ENODEV;
	__module_get(THIS_MODULE);	/* until it is known where the threads are */
	WRITE_ONCE(moving, true);
	while (atomic_read(&inside) < HS_PIPE_ENDS) {
		if (time_after(jiffies, until))
			return -ETIMEDOUT;
		usleep_range(1000, 2000);
	}
	for (i = HS_PIPE_ENDS - 1; i >= 0; i--)
		hs_hook_remove(&pipe_hooks[i]);
	text_of(the_pipe->owner, &old);
	/* On both stacks the new loop stands inside the old one, which it never returns to: hs_stack_end(). */
	found = hs_stack_wait(&old, timeout_ms);
	if (found < 0)
		return found;
	moved = true;
	for (i = 0; i < HS_PIPE_ENDS; i++)
		module_put(the_pipe->owner);
	the_pipe->owner = NULL;
	module_put(THIS_MODULE);
	return 0;
}

static int set_move(const char *value, const struct kernel_param *param)
{
	int err;

	mutex_lock(&move_lock);
	err = moving ? -EALREADY : move_threads();
	mutex_unlock(&move_lock);
	return err;
}

static const struct kernel_param_ops move_ops = { .set = set_move };
module_param_cb(move, &move_ops, NULL, 0200);
MODULE_PARM_DESC(move, "write: move the endless threads into the new loop, and let the old module go");

static int get_figures(char *buffer, const struct kernel_param *param)
{
	const struct hs_pipe *pipe = READ_ONCE(the_pipe);

	if (!pipe)
		return sysfs_emit(buffer, "null\n");
	return sysfs_emit(buffer, "{\"produced\":%llu,\"consumed\":%llu,\"mismatched\":%llu,\"swapped\":%llu,"
			  "\"inside\":%d,\"moved\":%s}\n", READ_ONCE(pipe->produced), READ_ONCE(pipe->consumed),
			  READ_ONCE(pipe->mismatched), READ_ONCE(pipe->swapped), atomic_read(&inside),
			  moved ? "true" : "false");
}

static const struct kernel_param_ops figures_ops = { .get = get_figures };
module_param_cb(figures, &figures_ops, NULL, 0444);
MODULE_PARM_DESC(figures, "what the endless threads have done");

/* The kernel's function, in whose place editions answer; called from here it is itself. */
static int no_original(struct seq_file *seq, void *unused)
{
	return -ENODEV;
}
DEFINE_STATIC_CALL(original_show, no_original);

/* An edition of it: says who answers, then what the original says. */
static notrace int cmdline_call(const struct hs_edition *self, struct hs_call *call)
{
	struct seq_file *seq = (struct seq_file *)(unsigned long)call->arg;
	int err;

	seq_printf(seq, "hotswap.edition=%u ", self->version);
	err = static_call(original_show)(seq, NULL);
	barrier();	/* no tail call: who is called from here passes the hook by */
	return err;
}

static struct hs_edition cmdline_editions[] = {
	{
		.slot = "cmdline", .name = "first", .version = 1, .identity = HS_MIX,
		.owner = THIS_MODULE, .call = cmdline_call,
	}, {
		.slot = "cmdline", .name = "second", .version = 2, .identity = HS_FNV,
		.owner = THIS_MODULE, .call = cmdline_call,
	},
};

static notrace int instead_of_show(struct seq_file *seq, void *unused)
{
	struct hs_call call = { .arg = (unsigned long)seq };
	int err = hs_dispatch(cmdline_slot, &call);

	if (err == -ENODEV) {	/* nobody stands there: the original, unadorned */
		err = static_call(original_show)(seq, unused);
		barrier();
	}
	return err;
}

static struct hs_hook cmdline_hook = {
	.function = "cmdline_proc_show",
	.to = instead_of_show,
	.owner = THIS_MODULE,
};

static int join_cmdline(struct hs_edition *edition)
{
	struct hs_ctl_drain drain = { .slot = "cmdline" };

	edition->interface = hs_hash("cmdline_proc_show");
	return hs_edition_register(edition) ?: hs_slot_drain(&drain);
}

/* Produced the original's way from here on, and then opened that way: no item is left that an edition made. */
static void pipe_hooks_remove(void)
{
	struct hs_pipe *pipe = READ_ONCE(the_pipe);
	u64 produced;

	hs_hook_remove(&pipe_hooks[1]);
	produced = pipe ? smp_load_acquire(&pipe->produced) : 0;
	while (pipe && smp_load_acquire(&pipe->consumed) < produced)
		usleep_range(1000, 2000);
	hs_hook_remove(&pipe_hooks[0]);
}

/* The threads end where they are; what was on its way is nobody's any more. */
static void end_threads(void)
{
	struct hs_pipe *pipe = the_pipe;
	struct hs_item *item;
	int i;

	WRITE_ONCE(ending, true);
	for (i = 0; i < HS_PIPE_ENDS; i++) {
		wait_for_completion(&ended[i]);
		hs_stack_forget(endless[i]);
	}
	while ((item = hs_pipe_first(pipe))) {
		if (item->round.slot)
			hs_round_end(&item->round);
		hs_pipe_taken(pipe, true);
	}
	hs_free(pipe);
}

static int pipe_begin(void)
{
	int err;

	pipe_slot = hs_slot_get("pipe");
	if (IS_ERR(pipe_slot)) {
		err = PTR_ERR(pipe_slot);
		pipe_slot = NULL;
		return err;
	}
	init_completion(&ended[0]);
	init_completion(&ended[1]);
	err = -EOPNOTSUPP;
	if (pipe_slot->mechanism->order != HS_SIDE_BY_SIDE)
		goto put;
	err = hs_hook_install(&pipe_hooks[0]);
	if (err)
		goto put;
	err = hs_hook_install(&pipe_hooks[1]);
	if (!err)
		return 0;
	hs_hook_remove(&pipe_hooks[0]);
put:
	hs_slot_put(pipe_slot);
	pipe_slot = NULL;
	return err;
}

static void pipe_end(void)
{
	if (!pipe_slot)
		return;
	if (moved)
		end_threads();
	else
		pipe_hooks_remove();
	hs_slot_put(pipe_slot);
}

static int cmdline_begin(void)
{
	int err;

	cmdline_slot = hs_slot_get("cmdline");
	if (IS_ERR(cmdline_slot)) {
		err = PTR_ERR(cmdline_slot);
		cmdline_slot = NULL;
		return err;
	}
	cmdline_hook.at = hs_find_symbol(cmdline_hook.function);
	static_call_update(original_show, (int (*)(struct seq_file *, void *))cmdline_hook.at);
	err = cmdline_hook.at ? hs_hook_install(&cmdline_hook) : -ENOENT;
	if (err) {
		hs_slot_put(cmdline_slot);
		cmdline_slot = NULL;
	}
	return err;
}

/* Its editions have been retired: each held this module. */
static void cmdline_end(void)
{
	int i;

	if (!cmdline_slot)
		return;
	hs_hook_remove(&cmdline_hook);
	for (i = 0; i < ARRAY_SIZE(cmdline_editions); i++)
		if (cmdline_editions[i].ref)
			hs_edition_unregister(&cmdline_editions[i]);
	hs_slot_put(cmdline_slot);
}

/* The hooks are gone, and who came by them must be too. */
static void leave(void)
{
	struct hs_stack_range own;

	pipe_end();
	cmdline_end();
	text_of(THIS_MODULE, &own);
	while (hs_stack_wait(&own, timeout_ms) < 0)
		pr_info("waiting for a task to leave\n");
}

static int __init demo_init(void)
{
	int err = 0;

	if (strstr(of, "pipe"))
		err = pipe_begin();
	if (!err && strstr(of, "cmdline"))
		err = cmdline_begin();
	/* Last, since from here on this module is held. */
	if (!err && cmdline_slot)
		err = join_cmdline(&cmdline_editions[0]) ?: join_cmdline(&cmdline_editions[1]);
	if (err)
		leave();
	return err;
}
module_init(demo_init);

static void __exit demo_exit(void)
{
	leave();
}
module_exit(demo_exit);

MODULE_DESCRIPTION("hotswap demonstration: swapping endless threads and functions of the kernel");
MODULE_LICENSE("GPL");
