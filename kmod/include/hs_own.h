/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Algorithms of editions that are kept out of this tree: none. A file of this name in a folder of your own takes this
 * one's place (lab run ... --kmod FOLDER).
 *
 * An edition names, as its identity, the algorithm that callers check its results by. It may be one of
 * hs_algorithms.h, computed in another way. Else your hs_own.h defines it: with a number from HS_OWN on, in
 * hs_own_algorithm(), which is compiled into the kernel's callers and into those of user space, and so includes nothing.
 * It is to depend on the version: else nobody could tell an older edition's result from a newer one's.
 */
#ifndef HS_OWN_H
#define HS_OWN_H

/* What algorithm @identity makes of @x at @version; 0 for an identity that is none of yours. */
static inline __u64 hs_own_algorithm(__u32 identity, __u64 x, __u32 version)
{
	(void)identity;
	(void)x;
	(void)version;
	return 0;
}

#endif /* HS_OWN_H */
