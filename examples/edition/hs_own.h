/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the editions of this folder compute, where hs_algorithms.h does not define it: for the editions themselves and for
 * everybody who checks their results, in the kernel and in user space. It includes nothing.
 */
#ifndef HS_OWN_H
#define HS_OWN_H

enum own_identity {
	OWN_WEYL = HS_OWN,
};

/* The middle bits of a Weyl sequence's square, keyed with the version. */
static inline __u64 own_weyl(__u64 x, __u32 version)
{
	__u64 step = x * 0xb5ad4eceda1ce2a9ULL + version;

	step *= step | 1;
	return (step >> 32) | (step << 32);
}

static inline __u64 hs_own_algorithm(__u32 identity, __u64 x, __u32 version)
{
	return identity == OWN_WEYL ? own_weyl(x, version) : 0;
}

#endif /* HS_OWN_H */
