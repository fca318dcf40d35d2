/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What one caller records of its calls.
 *
 * Purpose: the same figures from user threads and from interrupt handlers. One recorder has one writer, so there are no
 * locks and no atomics; nothing is printed or allocated while it runs.
 *
 * Latencies go into log-linear histograms, 2^HS_SUB_BITS buckets per power of two. Gaps are the intervals between two
 * completed calls that are at least gap_floor_ns long; when their list is full the floor doubles and shorter ones go.
 */
#ifndef HS_RECORDER_H
#define HS_RECORDER_H

#include <linux/types.h>
#include "hs_algorithms.h"

#define HS_SUB_BITS	4
#define HS_TOP_BIT	40	/* 18 minutes; longer latencies share the last bucket */
#define HS_BUCKETS	((HS_TOP_BIT - HS_SUB_BITS + 2) << HS_SUB_BITS)
#define HS_PHASES	3
#define HS_GAPS		4096
#define HS_VERSIONS	4096
#define HS_ENTRIES	2	/* a slot and its mate */
#define HS_GAP_FLOOR_NS	100000ULL

struct hs_pair {
	__u64 a, b;
};

/**
 * struct hs_recorder - one caller's figures
 * @issued:	calls begun
 * @completed:	calls that gave a result
 * @failed:	calls that gave an error
 * @wrong:	results that are not the one their edition computes
 * @retried:	times that a call was cut off and made again through the module table
 * @recovered:	times that a caller's recovery routine made it again
 * @rounds:	calls that belong together, made to their end
 * @torn:	of those, how many were answered by more than one edition
 * @stale:	results of an older edition after this caller had seen a newer one behind the same entry of the table
 * @newest:	highest version seen, by entry: a slot and its mate need not change together, see @torn
 * @versions:	used entries of @version
 * @version:	each {version, calls}
 * @versions_lost: calls of versions that found no room
 * @last_ns:	when the last call completed; 0 before the first
 * @gap_floor_ns: shortest gap that is kept
 * @gaps:	used entries of @gap
 * @gap:	each {start, end}
 * @max_ns:	longest latency by phase
 * @hist:	latencies by phase and hs_bucket()
 */
struct hs_recorder {
	__u64 issued, completed, failed, wrong, stale, retried, recovered, rounds, torn;
	__u32 newest[HS_ENTRIES], versions;
	__u64 versions_lost;
	__u64 last_ns, gap_floor_ns;
	__u32 gaps;
	__u64 max_ns[HS_PHASES];
	__u64 hist[HS_PHASES][HS_BUCKETS];
	struct hs_pair version[HS_VERSIONS];
	struct hs_pair gap[HS_GAPS];
};

static inline __u32 hs_bucket(__u64 ns)
{
	int top;

	if (ns < (1ULL << HS_SUB_BITS))
		return ns;
	top = 63 - __builtin_clzll(ns);
	if (top > HS_TOP_BIT)
		return HS_BUCKETS - 1;
	return ((__u32)(top - HS_SUB_BITS + 1) << HS_SUB_BITS) +
	       ((ns >> (top - HS_SUB_BITS)) & ((1U << HS_SUB_BITS) - 1));
}

static inline void hs_record_gap(struct hs_recorder *rec, __u64 start, __u64 end)
{
	__u32 i, kept = 0;

	if (end - start < rec->gap_floor_ns)
		return;
	while (rec->gaps == HS_GAPS) {
		rec->gap_floor_ns *= 2;
		for (i = 0, kept = 0; i < rec->gaps; i++)
			if (rec->gap[i].b - rec->gap[i].a >= rec->gap_floor_ns)
				rec->gap[kept++] = rec->gap[i];
		rec->gaps = kept;
	}
	if (end - start < rec->gap_floor_ns)
		return;
	rec->gap[rec->gaps].a = start;
	rec->gap[rec->gaps++].b = end;
}

/* Versions rise, so the entry wanted is nearly always the last. */
static inline void hs_record_version(struct hs_recorder *rec, int mate, __u32 version)
{
	__u32 i = rec->versions;

	if (version < rec->newest[mate])
		rec->stale++;
	else
		rec->newest[mate] = version;
	while (i && rec->version[i - 1].a != version)
		i--;
	if (!i) {
		if (rec->versions == HS_VERSIONS) {
			rec->versions_lost++;
			return;
		}
		i = ++rec->versions;
		rec->version[i - 1].a = version;
	}
	rec->version[i - 1].b++;
}

/* A call of the slot, or of its @mate (1), that returned a result at @end_ns, begun at @start_ns. */
static inline void hs_record_done(struct hs_recorder *rec, __u32 phase, __u64 start_ns, __u64 end_ns,
				  int mate, __u32 version, int right)
{
	__u64 took = end_ns - start_ns;

	if (phase >= HS_PHASES)
		phase = HS_PHASES - 1;
	rec->completed++;
	rec->wrong += !right;
	rec->hist[phase][hs_bucket(took)]++;
	if (took > rec->max_ns[phase])
		rec->max_ns[phase] = took;
	if (rec->last_ns)
		hs_record_gap(rec, rec->last_ns, end_ns);
	rec->last_ns = end_ns;
	hs_record_version(rec, mate, version);
}

/* xorshift64: the seeded arguments of a caller; @state must not be 0. */
static inline __u64 hs_random(__u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/*
 * The recorder's part of a JSON object, without braces. @out is whatever @print, printf-like, takes first: a FILE or a
 * seq_file. A macro, because the kernel and C's library share no printing function.
 */
#define hs_recorder_json(print, out, rec) do {								\
	static const char * const hs_phase_[HS_PHASES] = { "before", "during", "after" };		\
	const char *sep_ = "";										\
	__u32 p_, i_;											\
													\
	print(out, "\"issued\":%llu,\"completed\":%llu,\"failed\":%llu,\"wrong\":%llu,\"stale\":%llu,",	\
	      (rec)->issued, (rec)->completed, (rec)->failed, (rec)->wrong, (rec)->stale);		\
	print(out, "\"retried\":%llu,\"recovered\":%llu,", (rec)->retried, (rec)->recovered);		\
	print(out, "\"rounds\":%llu,\"torn\":%llu,", (rec)->rounds, (rec)->torn);				\
	print(out, "\"versions_lost\":%llu,\"editions\":[", (rec)->versions_lost);			\
	for (i_ = 0; i_ < (rec)->versions; i_++)							\
		print(out, "%s[%llu,%llu]", i_ ? "," : "", (rec)->version[i_].a, (rec)->version[i_].b);	\
	print(out, "],\"hist\":{");									\
	for (p_ = 0; p_ < HS_PHASES; p_++) {								\
		print(out, "%s\"%s\":[", p_ ? "," : "", hs_phase_[p_]);					\
		for (i_ = 0, sep_ = ""; i_ < HS_BUCKETS; i_++) {					\
			if (!(rec)->hist[p_][i_])							\
				continue;								\
			print(out, "%s[%u,%llu]", sep_, i_, (rec)->hist[p_][i_]);			\
			sep_ = ",";									\
		}											\
		print(out, "]");									\
	}												\
	print(out, "},\"max_ns\":{");									\
	for (p_ = 0; p_ < HS_PHASES; p_++)								\
		print(out, "%s\"%s\":%llu", p_ ? "," : "", hs_phase_[p_], (rec)->max_ns[p_]);		\
	print(out, "},\"last_ns\":%llu,\"gap_floor_ns\":%llu,\"gaps\":[", (rec)->last_ns, (rec)->gap_floor_ns);	\
	for (i_ = 0; i_ < (rec)->gaps; i_++)								\
		print(out, "%s[%llu,%llu]", i_ ? "," : "", (rec)->gap[i_].a, (rec)->gap[i_].b);		\
	print(out, "]");										\
} while (0)

#endif /* HS_RECORDER_H */
