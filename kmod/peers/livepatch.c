// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap peer: livepatch, what upstream Linux offers.
 *
 * Purpose: the same editions, swapped by kernel live patching, so that its row compares with the others. Every call
 * goes through one function of this file, hs_livepatch_site(), which by itself finds nobody. Each edition brings an
 * upstream livepatch (atomic replace) that puts a function of its own there; the patch before it is over when every task
 * has been moved, at a moment when that task is not inside. Consistency and lifetime are livepatch's: what is counted
 * here is counted for the statistics, and to hold livepatch to its word.
 *
 * Usage: insmod hs_core.ko mechanism=livepatch
 *	  The editions' modules must say livepatch=Y in .modinfo. hs-ctl makes them say so on their way into the kernel.
 *
 * What a row says. A task finds the new edition from the moment it was moved, an interrupt what the task finds that it
 * came upon; so one interrupt may find the new edition and the next the old one. A swap ends when the last task was
 * moved, and a task asleep in the old edition holds it up as long as it sleeps; such tasks are named.
 *
 * How long that takes. Livepatch looks at all tasks once when a patch is enabled, and again about every second. At
 * the first look every other CPU runs some task, so under load a swap would take a second whatever the tasks do. Hence
 * a swapper that waits here asks it to look again, soon at first, then ever more rarely, by running the very function
 * that its timer runs; a few times only, for after 15 looks livepatch begins to signal tasks. With livepatch_ask=0, or where that
 * function is not found, it is left alone.
 *
 * From 6.4 to 6.15 tasks are moved in cond_resched() too, if the kernel's preemption mode can be chosen at boot: during
 * each transition all its callers, more than a thousand, are patched one by one, and back afterwards. That takes
 * seconds under emulation, and multi-threaded TCG crashes on patching code that other CPUs run. Later kernels move them in
 * schedule(), behind a static key: one place, patched twice per transition, and the busiest that there is. So under TCG
 * both are left out, as on kernels before 6.4; livepatch_cond_resched=1 leaves them in.
 *
 * Who livepatch does not see. Its handler chooses the function and lets itself be preempted before the function's first
 * instruction: for that long the choice is in saved registers, not on the stack that livepatch looks at. On a kernel that is
 * preempted in its own code (preempt=full, and lazy, which 7.x has left) such a task is moved, the transition ends,
 * and the task then runs the old edition, which may be gone: under load, about once in a thousand swaps. So there the old
 * edition is kept until every task has gone to sleep or to user space by itself twice more; calls that are seen to come
 * so late are counted. livepatch_late=0 lets it go when livepatch does.
 *
 * One slot at a time: an atomic replace patch replaces every other.
 */

#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/jump_label.h>
#include <linux/kallsyms.h>
#include <linux/ktime.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/utsname.h>
#include "../compat.h"
#include "../core/core.h"
#include "../core/hook.h"
#include "../core/policy.h"

/* Calls that came into an edition, or were in it, after the transition away from it had ended; others may not be seen. */
static atomic_long_t late;

/**
 * hs_site_call - one call that arrived in an edition's own function; see HS_SITE() in include/hotswap.h
 * @self: the edition
 * @slot: which is called
 * @call: the call
 *
 * Context: any. Return: the edition's answer, or -ENODEV if the slot is another than the edition's.
 */
notrace int hs_site_call(const struct hs_edition *self, struct hs_slot *slot, struct hs_call *call)
{
	struct hs_ref *ref = self->ref;
	int err;

	if (unlikely(slot != ref->slot && slot != ref->slot->mate))
		return hs_slot_empty(slot);
	preempt_disable_notrace();
	hs_ref_enter(ref);
	preempt_enable_notrace();
	if (unlikely(READ_ONCE(ref->draining)))
		atomic_long_inc(&late);
	err = hs_ref_call(ref, slot, call);
	preempt_disable_notrace();
	hs_ref_exit(ref);
	preempt_enable_notrace();
	return err;
}

/* What editions' patches replace. Traced, unlike all else on this path: livepatch needs ftrace's site at its entry. */
static noinline int hs_livepatch_site(struct hs_slot *slot, struct hs_call *call)
{
	return hs_slot_empty(slot);
}

/* What a mutant does instead. */
#ifndef HS_LIVEPATCH_CALL
#define HS_LIVEPATCH_CALL hs_livepatch_site
#endif

#ifdef CONFIG_LIVEPATCH

#define STALLED_MS	1000	/* who has not been moved by then is named */
#define ASK_MAX_MS	1000	/* livepatch looks by itself that often */
#define ASKS		10	/* of each wait */
#define FIRST_MS	10000	/* the first patch is enabled before there are callers */
#define NAMES		8
#define NAME_LEN	(TASK_COMM_LEN + 16)

static bool livepatch_ask = true;
module_param(livepatch_ask, bool, 0444);
MODULE_PARM_DESC(livepatch_ask, "whether to ask livepatch to look at the tasks again before its own timer does");

static int livepatch_cond_resched = -1;
module_param(livepatch_cond_resched, int, 0444);
MODULE_PARM_DESC(livepatch_cond_resched, "whether livepatch may patch cond_resched() and schedule(); -1: not under TCG");

static bool livepatch_late = true;
module_param(livepatch_late, bool, 0444);
MODULE_PARM_DESC(livepatch_late, "whether to wait for tasks that livepatch does not see, where the kernel is preemptible");

/**
 * struct livepatch - an edition's patch
 * @klp:	livepatch's own; its module's count is held until it is over
 * @objects:	the module that has hs_livepatch_site(), and an end mark
 * @functions:	that function, and an end mark
 * @over:	a transition to or from this patch is complete
 * @since_ns:	when it began
 * @over_ns:	when it was complete
 * @leaving:	it is being disabled
 * @named:	tasks that held it up have been named
 */
struct livepatch {
	struct klp_patch klp;
	struct klp_object objects[2];
	struct klp_func functions[2];
	struct completion over;
	u64 since_ns;
	u64 over_ns;
	bool leaving;
	bool named;
};

/* Which slot it is. Under hs_lock. */
static struct hs_slot *livepatch_slot;
/* What livepatch's timer runs; NULL where it is not found. */
static work_func_t livepatch_look;
/* How many of the hooks that keep it from patching cond_resched() and schedule() have been gone through. */
static unsigned int kept;

/* Figures. The first two are written by livepatch's callback, under its mutex; the rest by who waits in a swap. */
static unsigned long transitions;
static u64 longest_ns;
static unsigned long asked, forced, left_inside, kept_for_late, stalled;
static char stalled_names[NAMES][NAME_LEN];

/* Every task has been moved, and no CPU uses the patch before. Context: process, livepatch's mutex held. */
static void livepatch_over(struct klp_object *object)
{
	struct livepatch *patch = container_of(object, struct livepatch, objects[0]);

	patch->over_ns = ktime_get_ns();
	transitions++;
	longest_ns = max(longest_ns, patch->over_ns - patch->since_ns);
	complete_all(&patch->over);
}

static void livepatch_begin(struct livepatch *patch)
{
	reinit_completion(&patch->over);
	patch->since_ns = ktime_get_ns();
	patch->named = false;
}

static int livepatch_adopt(struct hs_slot *slot, struct hs_ref *ref)
{
	const struct hs_edition *edition = ref->edition;
	struct livepatch *patch;

	if (!edition->site) {
		pr_err("livepatch: edition %s has no function for it, see HS_SITE()\n", edition->name);
		return -EINVAL;
	}
	if (livepatch_slot && livepatch_slot != slot) {
		pr_err("livepatch: one slot at a time, and %s has editions\n", livepatch_slot->name);
		return -EOPNOTSUPP;
	}
	/* Livepatch lets go of the module as soon as the transition is over: we do when the record is folded. */
	if (!try_module_get(edition->owner))
		return -ENODEV;
	patch = hs_zalloc(sizeof(*patch));
	if (!patch) {
		module_put(edition->owner);
		return -ENOMEM;
	}
	patch->klp.mod = edition->owner;
	patch->klp.objs = patch->objects;
	patch->klp.replace = true;
	patch->objects[0].name = module_name(THIS_MODULE);
	patch->objects[0].funcs = patch->functions;
	patch->objects[0].callbacks.post_patch = livepatch_over;
	patch->objects[0].callbacks.post_unpatch = livepatch_over;
	patch->functions[0].old_name = "hs_livepatch_site";
	patch->functions[0].new_func = edition->site;
	init_completion(&patch->over);
	ref->own = patch;
	return 0;
}

/* Livepatch has put the edition's module, which is its last act with a patch. */
static void livepatch_forget(struct hs_slot *slot, struct hs_ref *ref)
{
	hs_free(ref->own);
	ref->own = NULL;
}

/* Every task that has not been moved yet: in the kernel log, and the last few in the figures. */
static void livepatch_name_stalled(void)
{
	struct task_struct *group, *task;
	char *name, *c;

	rcu_read_lock();
	for_each_process_thread(group, task) {
		if (!klp_patch_pending(task))
			continue;
		name = stalled_names[stalled++ % NAMES];
		snprintf(name, NAME_LEN, "%s[%d]", task->comm, task->pid);
		for (c = name; *c; c++)
			if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\')
				*c = '?';
		pr_info("livepatch: %s holds up the transition\n", name);
	}
	rcu_read_unlock();
}

/* What an administrator does by echo. Context: process, may sleep, no lock. Return: 0 or what livepatch says. */
static int livepatch_write(const struct livepatch *patch, const char *attribute, const char *value)
{
	char path[HS_MODULE_LEN + 64];
	struct file *file;
	loff_t pos = 0;
	ssize_t written;

	snprintf(path, sizeof(path), "/sys/kernel/livepatch/%s/%s", module_name(patch->klp.mod), attribute);
	file = filp_open(path, O_WRONLY, 0);
	if (IS_ERR(file))
		return PTR_ERR(file);
	written = kernel_write(file, value, strlen(value), &pos);
	filp_close(file, NULL);
	return written < 0 ? written : 0;
}

/* Ask livepatch to look at all tasks again. Context: process, may sleep, livepatch's mutex not held. */
static void livepatch_ask_again(struct livepatch *patch)
{
	if (!livepatch_ask || !livepatch_look)
		return;
	asked++;
	livepatch_look(NULL);
}

/* Likewise. */
#ifndef HS_LIVEPATCH_ASK
#define HS_LIVEPATCH_ASK livepatch_ask_again
#endif

/* Wait for the end of a transition. Context: process, may sleep. Return: 0, -ETIMEDOUT or -EINTR. */
static int livepatch_wait(struct livepatch *patch, unsigned int timeout_ms)
{
	const unsigned long begin = jiffies, end = begin + msecs_to_jiffies(timeout_ms);
	unsigned int pause_ms = 1, asks = 0;
	long left;

	for (;;) {
		left = wait_for_completion_interruptible_timeout(&patch->over, msecs_to_jiffies(pause_ms));
		if (left)
			return left < 0 ? -EINTR : 0;
		if (!patch->named && time_after(jiffies, begin + msecs_to_jiffies(min(timeout_ms, STALLED_MS)))) {
			patch->named = true;
			livepatch_name_stalled();
		}
		if (time_after(jiffies, end))
			return -ETIMEDOUT;
		if (asks++ < ASKS)	/* after 15 looks livepatch signals tasks, which it should not do early */
			HS_LIVEPATCH_ASK(patch);
		pause_ms = min(2 * pause_ms, ASK_MAX_MS);
	}
}

/* The first edition's calls would find nobody until their tasks are moved, so it is waited for; there are none yet. */
static int livepatch_publish(struct hs_slot *slot, struct hs_ref *new, struct hs_ref *old)
{
	struct livepatch *patch = new ? new->own : NULL;
	int err;

	if (patch) {
		livepatch_begin(patch);
		err = klp_enable_patch(&patch->klp);	/* from here on tasks are moved */
		if (err) {
			hs_free(patch);
			new->own = NULL;
			return err;
		}
		livepatch_slot = slot;
	}
	hs_slot_set(slot, new);
	if (!old && livepatch_wait(patch, FIRST_MS))
		pr_warn("livepatch: the first transition has not ended\n");
	return 0;
}

/* Who is left inside is noted; the module and the counters stay for them. Return: 0 or -ETIMEDOUT. */
static int livepatch_wait_for_left(struct hs_ref *old, unsigned int timeout_ms)
{
	const unsigned long end = jiffies + msecs_to_jiffies(timeout_ms);

	while (hs_ref_outstanding(old)) {
		if (time_after(jiffies, end))
			return -ETIMEDOUT;
		msleep(10);
	}
	synchronize_rcu_expedited();	/* nobody looks at the record */
	return 0;
}

/* Whether livepatch may have overlooked tasks on their way into the old edition. */
static bool may_be_late(void)
{
	return livepatch_late && preempt_model_preemptible();
}

/* Wait for them. Context: process, may sleep. Return: 0 or -ETIMEDOUT. */
static int livepatch_wait_for_late(struct hs_ref *old, unsigned int timeout_ms)
{
	int err;

	kept_for_late++;
	synchronize_rcu_tasks();	/* each has gone through the edition, or is counted in it */
	err = livepatch_wait_for_left(old, timeout_ms);
	if (err)
		return err;
	synchronize_rcu_tasks();	/* from the counter to the end of the text */
	return 0;
}

/* The patch that takes over ends the old one; the last patch is disabled. */
static int livepatch_drain(struct hs_slot *slot, struct hs_ref *old, unsigned int timeout_ms,
			   struct hs_drained *figures)
{
	struct livepatch *gone = old->own, *patch = slot->ref ? slot->ref->own : gone;
	long inside;
	int err = 0;

	if (patch == gone && !gone->leaving) {
		livepatch_begin(gone);
		err = livepatch_write(gone, "enabled", "0");
		gone->leaving = !err;
	}
	err = err ?: livepatch_wait(patch, timeout_ms);
	if (err)
		return err;
	figures->gone_ns = patch->over_ns;
	if (gone->klp.forced || patch->klp.forced)
		forced++;
	inside = hs_ref_outstanding(old);
	WRITE_ONCE(old->draining, true);
	if (may_be_late()) {
		atomic_long_add(inside, &late);
		return livepatch_wait_for_late(old, timeout_ms);
	}
	if (!inside)
		return 0;
	left_inside++;
	pr_err("livepatch: %ld calls are left in %s after the transition\n", inside, old->name);
	return livepatch_wait_for_left(old, timeout_ms);
}

/* Livepatch has a count of its own, which it puts soon after. */
static void livepatch_release(struct hs_slot *slot, struct hs_ref *ref)
{
	module_put(ref->edition->owner);
	if (!slot->ref)
		livepatch_slot = NULL;
}

static void livepatch_show(struct seq_file *seq)
{
	unsigned long i, first = stalled > NAMES ? stalled - NAMES : 0;

	seq_printf(seq, "\"livepatch\":{\"transitions\":%lu,\"longest_ns\":%llu,\"asked\":%lu,\"forced\":%lu,",
		   transitions, longest_ns, asked, forced);
	seq_printf(seq, "\"left_inside\":%lu,\"kept_for_late\":%lu,\"late\":%ld,", left_inside, kept_for_late,
		   atomic_long_read(&late));
	seq_printf(seq, "\"stalled\":%lu,\"stalled_names\":[", stalled);
	for (i = first; i < stalled; i++)
		seq_printf(seq, "%s\"%s\"", i > first ? "," : "", stalled_names[i % NAMES]);
	seq_puts(seq, "]}");
}

static void livepatch_nothing(void)
{
}

/* Tasks that turn on some other key, and sleep in our text meanwhile. */
static atomic_t enabling;

/* The key that livepatch turns on stays off; turning off what is off does nothing. Every other key is turned on. */
static void livepatch_no_key(struct static_key *key)
{
	char caller[KSYM_SYMBOL_LEN];

	sprint_symbol_no_offset(caller, (unsigned long)__builtin_return_address(0));
	if (str_has_prefix(caller, "klp_"))
		return;
	atomic_inc(&enabling);
	cpus_read_lock();
	static_key_enable_cpuslocked(key);
	cpus_read_unlock();
	atomic_dec(&enabling);
}

static struct hs_hook hooks[] = {
	{ .function = "sched_dynamic_klp_enable", .to = livepatch_nothing },
	{ .function = "sched_dynamic_klp_disable", .to = livepatch_nothing },
	{ .function = "static_key_enable", .to = livepatch_no_key },
};

static bool under_tcg(void)
{
#ifdef CONFIG_X86_64
	u32 leaf, name[3];

	if (!boot_cpu_has(X86_FEATURE_HYPERVISOR))
		return false;
	cpuid(0x40000000, &leaf, &name[0], &name[1], &name[2]);
	return !memcmp(name, "TCGTCGTCGTCG", sizeof(name));
#else
	return false;
#endif
}

/* A kernel has the first two, the third, or none of it. */
static bool is_wanted(const struct hs_hook *hook)
{
	const bool dynamic = hs_find_symbol(hooks[0].function);

	if (hook->to == livepatch_nothing)
		return dynamic;
	return IS_ENABLED(CONFIG_JUMP_LABEL) && !dynamic && hs_find_symbol("__klp_sched_try_switch");
}

static void livepatch_exit(void)
{
	const bool keyed = kept == ARRAY_SIZE(hooks) && hooks[kept - 1].at;

	while (kept) {
		kept--;
		if (hooks[kept].at)
			hs_hook_remove(&hooks[kept]);
		hooks[kept].at = 0;
	}
	if (!keyed)
		return;
	while (atomic_read(&enabling))
		msleep(10);
	synchronize_rcu_tasks();	/* from there to the end of the text */
}

/* Leave cond_resched() and schedule() as they are, if livepatch would patch them. */
static int livepatch_keep(void)
{
	int err = 0;

	if (livepatch_cond_resched >= 0 ? livepatch_cond_resched : !under_tcg())
		return 0;
	for (kept = 0; kept < ARRAY_SIZE(hooks) && !err; kept++)
		if (is_wanted(&hooks[kept]))
			err = hs_hook_install(&hooks[kept]);
	if (err) {
		hooks[--kept].at = 0;	/* the one that failed */
		livepatch_exit();
	}
	return err;
}

static int livepatch_init(void)
{
	if (!klp_have_reliable_stack())
		return hs_impossible("livepatch can not look at this kernel's stacks");
	livepatch_look = (work_func_t)hs_find_symbol("klp_transition_work_fn");
	return livepatch_keep();
}

#else /* !CONFIG_LIVEPATCH */

static int livepatch_init(void)
{
	return hs_impossible("%s, %s, has no livepatch: CONFIG_LIVEPATCH is not set%s", init_utsname()->release,
			     init_utsname()->machine, IS_ENABLED(CONFIG_HAVE_LIVEPATCH) ? "" :
			     ", and this kernel does not offer it on the architecture (no HAVE_LIVEPATCH)");
}

/* Nothing below is ever reached: no slot of this mechanism can be made. */
#define livepatch_exit		NULL
#define livepatch_adopt		NULL
#define livepatch_publish	NULL
#define livepatch_drain		NULL
#define livepatch_release	NULL
#define livepatch_forget	NULL
#define livepatch_show		NULL

#endif

static struct hs_mechanism livepatch = {
	.name = "livepatch",
	.owner = THIS_MODULE,
	.order = HS_NEW_FIRST,
	.init = livepatch_init,
	.exit = livepatch_exit,
	.call = HS_LIVEPATCH_CALL,
	.admit = hs_policy_check,
	.adopt = livepatch_adopt,
	.publish = livepatch_publish,
	.drain = livepatch_drain,
	.release = livepatch_release,
	.forget = livepatch_forget,
	.show = livepatch_show,
};
