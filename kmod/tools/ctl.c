// SPDX-License-Identifier: GPL-2.0-only
/*
 * hs-ctl: sets a guest up, swaps editions, asks for figures, takes everything down.
 *
 * Usage: ./hs-ctl up --mechanism refcount --load mixed [--seed 1] [--mutant NAME] [--core PARAMETERS]
 *	  ./hs-ctl swap --count 200 [--seed 1]
 *	  both with [--edition PARAMETERS], for every edition that they load
 *	  ./hs-ctl refuse | round [--ms 1000] | ask | stop | stats | down | sections MODULE
 *	  ./hs-ctl settle | reverse | retire [--slot NAME]	of editions side by side end a swap; or take back the
 *								newest; or the oldest
 *	  ./hs-ctl insert MODULE [--parameters PARAMETERS] | publish [--slot NAME] | remove MODULE
 *
 * Each prints JSON, one object a line; an error is {"error":"..."} and exit status 1. --deadline-ms bounds every wait.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "common.h"
#include "ctl.h"
#include "hs_recorder.h"
#include "modules.h"

static const struct load {
	const char *name;
	const char *parameters;
	unsigned int irq_sources;
} loads[] = {
	{ "syscall", "from=syscall", 0 },
	{ "irq", "from=edu,hrtimer", 3 },
	{ "exception", "from=exception", 0 },
	{ "policy", "from=policy", 0 },
	{ "mixed", "from=syscall,edu,hrtimer,exception", 3 },
	{ "stuck", "from=syscall,edu,hrtimer,exception", 3 },
};

void fill_ring(struct ring *ring, __u64 seed)
{
	static const char * const shipped[RING] = { "hs_ed_mix", "hs_ed_fnv", "hs_ed_crc", "hs_ed_lfsr" };
	__u64 random = hs_mix(seed, 1) | 1;

	ring->length = own_modules(ring->module, RING_MAX);
	for (int i = 0; ring->length < RING; i++)
		ring->module[ring->length++] = resolve(shipped[i]);
	for (int i = ring->length - 1; i > 0; i--) {
		int j = hs_random(&random) % (i + 1);
		const char *other = ring->module[i];

		ring->module[i] = ring->module[j];
		ring->module[j] = other;
	}
}

bool slot_info(int ctl, struct hs_ctl_info *info)
{
	*info = (struct hs_ctl_info) { .slot = SLOT };
	if (!ioctl(ctl, HS_CTL_INFO, info))
		return true;
	if (errno != ENOENT)
		die("HS_CTL_INFO: %s", strerror(errno));
	return false;
}

static void insert_or_die(const char *name, const char *parameters)
{
	int err = insert_module(resolve(name), parameters);

	if (err)
		die("insert %s: %s", resolve(name), strerror(err));
}

/* The kernel's own reason, where it left one. */
static void print_skip(const char *mechanism)
{
	char *reason = read_file(REASON_FILE);

	if (reason)
		reason[strcspn(reason, "\n")] = 0;
	if (reason && *reason)
		printf("{\"skip\":\"%s\"}\n", plain(reason));
	else
		printf("{\"skip\":\"this kernel or CPU can not do %s; the kernel log says why\"}\n", mechanism);
	free(reason);
}

static int up_command(int argc, char **argv)
{
	const char *mechanism = option(argc, argv, "--mechanism");
	const char *wanted = option(argc, argv, "--load");
	const char *core = option(argc, argv, "--core"), *edition = option(argc, argv, "--edition");
	__u64 start = now_ns(), seed = option_number(argc, argv, "--seed", 1);
	const struct load *load = NULL;
	struct ring ring;
	char text[512];
	__u32 sources;
	int ctl, err;

	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++)
		if (wanted && !strcmp(wanted, loads[i].name))
			load = &loads[i];
	if (!mechanism || !load)
		die("up wants --mechanism NAME and --load syscall|irq|exception|policy|mixed|stuck");
	choose_mutant(option(argc, argv, "--mutant"));
	open_phase_page(true);
	snprintf(text, sizeof(text), "mechanism=%s seed=%llu %s", mechanism, seed, core ?: "");
	insert_or_die("hs_core", text);
	/* Mechanisms are part of hs_core; a mutant of one is a module that comes after it. */
	snprintf(text, sizeof(text), "hs_%s", mechanism);
	if (strcmp(resolve(text), text))
		insert_or_die(text, "");
	err = insert_module(resolve("hs_load"), load->parameters);
	if (err == EOPNOTSUPP) {
		print_skip(mechanism);
		return 0;
	}
	if (err)
		die("insert %s: %s", resolve("hs_load"), strerror(err));
	fill_ring(&ring, seed);
	snprintf(text, sizeof(text), "version=1 %s", edition ?: "");
	insert_or_die(ring.module[0], text);

	ctl = open_ctl();
	if (ioctl(ctl, HS_CTL_SOURCES, &sources))
		die("HS_CTL_SOURCES: %s", strerror(errno));
	if (sources < load->irq_sources)
		die("%u interrupt sources instead of %u: is there an edu device?", sources, load->irq_sources);
	printf("{\"up\":{\"mechanism\":\"%s\",\"load\":\"%s\",\"edition\":\"%s\",\"up_ns\":%llu}}\n",
	       mechanism, load->name, ring.module[0], (now_ns() - start));
	return 0;
}

static bool load_ended(void *argument)
{
	const struct phase_page *page = argument;

	return !page->running || page->ended;
}

static void stop_load(struct phase_page *page)
{
	page->phase = HS_STOP;
	wait_until(load_ended, page, "end of hs-load");
}

static int stop_command(void)
{
	struct phase_page *page = open_phase_page(false);

	stop_load(page);
	printf("{\"stop\":{\"running\":%s}}\n", page->running ? "true" : "false");
	return 0;
}

/* May an update be applied now? One that changes the layout of the state waits for open transactions: whose? */
static int ask_command(void)
{
	struct hs_ctl_ask ask = { .slot = SLOT };
	bool quiet;

	if (ioctl(open_ctl(), HS_CTL_ASK, &ask))
		die("HS_CTL_ASK: %s%s", strerror(errno), errno == EOPNOTSUPP ? ": this mechanism has no transactions" : "");
	quiet = !ask.swapping && !ask.in_flight;
	printf("{\"ask\":{\"same_layout\":%s,\"new_layout\":%s,\"open\":%u,\"in_flight\":%lld,\"conflicts\":[",
	       ask.swapping ? "false" : "true", quiet ? "true" : "false", ask.open, ask.in_flight);
	for (unsigned int i = 0; i < ask.open && i < HS_ASK_NAMED; i++) {
		for (char *c = ask.who[i].task; *c; c++)
			if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\')
				*c = '?';
		printf("%s{\"task\":\"%s\",\"pid\":%u,\"version\":%u,\"age_ns\":%llu}", i ? "," : "", ask.who[i].task,
		       ask.who[i].pid, ask.who[i].version, ask.who[i].age_ns);
	}
	printf("]}}\n");
	return 0;
}

static int stats_command(void)
{
	char *stats = read_file(STATS_FILE);

	if (!stats)
		die(STATS_FILE ": %s", strerror(errno));
	stats[strcspn(stats, "\n")] = 0;
	printf("{\"stats\":%s}\n", stats);
	free(stats);
	return 0;
}

/* Take every edition out of the slot and unload it. False if references are left. */
static bool drain_slot(int ctl)
{
	struct hs_ctl_drain drain = { .slot = SLOT, .timeout_ms = deadline_ms(), .retire = HS_RETIRE_ONE };
	struct hs_ctl_info info;
	unsigned int attempts;

	while (slot_info(ctl, &info) && (info.retiring[0] || info.module[0])) {
		if (info.order == HS_OLD_FIRST) {
			if (remove_module_patiently(info.module, 1000, 1000, &attempts))
				return false;
			continue;
		}
		if (ioctl(ctl, HS_CTL_DRAIN, &drain) || !drain.module[0])
			return false;
		if (remove_module_patiently(drain.module, 1000, 1000, &attempts))
			return false;
	}
	return true;
}

/* Remove what goes, until nothing more goes: dependents are refused until their users are away. */
static size_t remove_all(char names[MODULES_MAX][NAME_MAX_LEN], const char *except)
{
	size_t left = loaded_modules(names), before;

	do {
		before = left;
		for (size_t i = 0; i < left; i++)
			if (!except || strcmp(names[i], except))
				remove_module(names[i]);
		left = loaded_modules(names);
	} while (left && left < before);
	return left;
}

static void print_leak(void)
{
	long long allocated, freed;
	char *stats = read_file(STATS_FILE);
	char *memory = stats ? strstr(stats, "\"memory\"") : NULL;

	if (!memory || sscanf(memory, "\"memory\":{\"allocated\":%lld,\"freed\":%lld", &allocated, &freed) != 2)
		printf("\"memory was not counted: no " STATS_FILE "\"");
	else if (allocated != freed)
		printf("\"memory: %lld allocated, %lld freed\"", allocated, freed);
	free(stats);
}

static int down_command(void)
{
	char names[MODULES_MAX][NAME_MAX_LEN];
	bool drained = true;
	unsigned int attempts;
	size_t left;

	if (!access(beside("phase"), F_OK))
		stop_load(open_phase_page(false));
	if (is_loaded(resolve("hs_load")))
		remove_module_patiently(resolve("hs_load"), 1000, 1000, &attempts);
	printf("{\"down\":{\"leaks\":[");
	if (is_loaded(resolve("hs_core"))) {
		int ctl = open_ctl();

		drained = drain_slot(ctl);
		close(ctl);
		remove_all(names, resolve("hs_core"));
		print_leak();
	}
	left = remove_all(names, NULL);
	printf("],\"modules_left\":[");
	for (size_t i = 0; i < left; i++)
		printf("%s\"%s\"", i ? "," : "", names[i]);
	printf("],\"drained\":%s}}\n", drained ? "true" : "false");
	return 0;
}

/* What the kernel says of a loaded module: state, references, where its ELF sections are. */
static int sections_command(const char *name)
{
	char path[512];
	char *state, *refs, *address;
	const char *separator = "";
	struct dirent *entry;
	DIR *folder;

	snprintf(path, sizeof(path), "/sys/module/%s/initstate", name);
	state = read_file(path);
	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", name);
	refs = read_file(path);
	snprintf(path, sizeof(path), "/sys/module/%s/sections", name);
	folder = opendir(path);
	if (!state || !refs || !folder)
		die("%s is not loaded", name);
	printf("{\"module\":\"%s\",\"state\":\"%.*s\",\"refs\":%d,\"sections\":{", name,
	       (int)strcspn(state, "\n"), state, atoi(refs));
	while ((entry = readdir(folder))) {
		if (entry->d_type != DT_REG)
			continue;
		snprintf(path, sizeof(path), "/sys/module/%s/sections/%s", name, entry->d_name);
		address = read_file(path);
		printf("%s\"%s\":\"%.*s\"", separator, entry->d_name, address ? (int)strcspn(address, "\n") : 0,
		       address ?: "");
		free(address);
		separator = ",";
	}
	printf("}}\n");
	closedir(folder);
	free(state);
	free(refs);
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";

	set_deadline(argc, argv);
	if (!strcmp(command, "up"))
		return up_command(argc, argv);
	if (!strcmp(command, "swap"))
		return swap_command(argc, argv);
	if (!strcmp(command, "refuse"))
		return refuse_command(argc, argv);
	if (!strcmp(command, "settle"))
		return retire_command(argc, argv, command, HS_RETIRE_REPLACED);
	if (!strcmp(command, "reverse"))
		return retire_command(argc, argv, command, HS_RETIRE_NEWEST);
	if (!strcmp(command, "retire"))
		return retire_command(argc, argv, command, HS_RETIRE_ONE);
	if (!strcmp(command, "insert"))
		return insert_command(argc, argv);
	if (!strcmp(command, "publish"))
		return publish_command(argc, argv);
	if (!strcmp(command, "remove"))
		return remove_command(argc, argv);
	if (!strcmp(command, "stop"))
		return stop_command();
	if (!strcmp(command, "round"))
		return round_command(argc, argv);
	if (!strcmp(command, "ask"))
		return ask_command();
	if (!strcmp(command, "stats"))
		return stats_command();
	if (!strcmp(command, "down"))
		return down_command();
	if (!strcmp(command, "sections") && argc > 2)
		return sections_command(argv[2]);
	die("usage: hs-ctl up|swap|refuse|round|ask|settle|reverse|retire|insert|publish|remove|stop|stats|down|sections MODULE");
}
