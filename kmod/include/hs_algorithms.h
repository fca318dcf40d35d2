/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What each edition computes.
 *
 * Purpose: one definition, included by the editions and by every caller, in the kernel and in user space, so that a
 * caller can tell a right answer from one that an older, half-swapped or already freed edition gave.
 *
 * The algorithms differ in kind, not in a constant, and each mixes the edition's version in: two editions of the same
 * algorithm give different results as well.
 */
#ifndef HS_ALGORITHMS_H
#define HS_ALGORITHMS_H

#include <linux/types.h>
#include <uapi/hotswap.h>

/* hs_identity - which algorithm an edition is; 0 is no edition. */
enum hs_identity {
	HS_MIX = 1,
	HS_FNV = 2,
	HS_CRC = 3,
	HS_LFSR = 4,
	HS_OWN = 0x100,		/* the first of those in hs_own.h */
};

#include <hs_own.h>	/* in angle brackets: a folder of the user's comes before this one */

/*
 * The slot's state, made by its first edition and handed from edition to edition: a lost state changes every result. In
 * layout n the base is kept rotated left by n bits, so an object that is transformed twice, or not at all, does too.
 */
struct hs_calc_object {
	__u32 layout, pad;
	__u64 base;
};

#define HS_CALC_SLOT		"calc"
#define HS_CALC_BASE		0x6a09e667f3bcc908ULL
#define HS_CALC_INTERFACE	"calc: (u64 arg) -> u64; table: u64[256]"
#define HS_CALC_LAYOUT		"u32 layout, pad; u64 base"
#define HS_CALC_OBJECTS		64
#define HS_TABLE_LEN		256

/* The files that policies know, by name: as many of one kind as of the other. */
#define HS_POLICY_FILES		8
#define HS_POLICY_ALLOWED	"allowed-%u"
#define HS_POLICY_FORBIDDEN	"forbidden-%u"

/* FNV-1a of a text: interfaces and layouts are compared by it, and files are known to policies by it. */
static inline __u64 hs_hash(const char *text)
{
	__u64 hash = 0xcbf29ce484222325ULL;

	while (*text)
		hash = (hash ^ (__u8)*text++) * 0x100000001b3ULL;
	return hash;
}

/* SplitMix64's finalizer, keyed with the version. */
static inline __u64 hs_mix(__u64 x, __u32 version)
{
	x += version * 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* FNV-1a over the argument's eight bytes, then the version's low byte pair. */
static inline __u64 hs_fnv(__u64 x, __u32 version)
{
	__u64 hash = 0xcbf29ce484222325ULL;
	int i;

	for (i = 0; i < 8; i++)
		hash = (hash ^ ((x >> (8 * i)) & 0xff)) * 0x100000001b3ULL;
	return (hash ^ (version & 0xffff)) * 0x100000001b3ULL;
}

/* CRC-64/ECMA-182, bit by bit, started from the version. */
static inline __u64 hs_crc(__u64 x, __u32 version)
{
	__u64 crc = ~(__u64)version ^ x;
	int i;

	for (i = 0; i < 64; i++)
		crc = (crc << 1) ^ ((crc >> 63) ? 0x42f0e1eba9ea3693ULL : 0);
	return crc;
}

/* Galois LFSR, stepped 32 + version % 32 times. */
static inline __u64 hs_lfsr(__u64 x, __u32 version)
{
	__u64 state = x ^ ((__u64)version << 32);
	__u32 i;

	for (i = 0; i < 32 + version % 32; i++)
		state = (state >> 1) ^ (-(state & 1) & 0xd800000000000000ULL);
	return state + version;
}

/* The result of algorithm @identity at @version; 0 for an identity nobody has. */
static inline __u64 hs_algorithm(__u32 identity, __u64 x, __u32 version)
{
	switch (identity) {
	case HS_MIX:
		return hs_mix(x, version);
	case HS_FNV:
		return hs_fnv(x, version);
	case HS_CRC:
		return hs_crc(x, version);
	case HS_LFSR:
		return hs_lfsr(x, version);
	}
	return hs_own_algorithm(identity, x, version);
}

/* What a caller must get from that edition, by enum hs_op: from its function, its table, or its function for the mate. */
static inline __u64 hs_expected(__u32 identity, __u32 version, __u32 op, __u64 arg)
{
	if (op == HS_OP_LOOKUP)
		arg %= HS_TABLE_LEN;
	else if (op == HS_OP_SEAL)
		arg = ~arg;
	return hs_algorithm(identity, arg + HS_CALC_BASE, version);
}

#endif /* HS_ALGORITHMS_H */
