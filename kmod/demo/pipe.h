/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A producer and a consumer that never end, and what passes between them: a subsystem that never quiesces.
 *
 * Purpose: shared by demo/pipe.c, which was not written to be swapped, and demo/swap.c, which swaps it.
 */
#ifndef HS_PIPE_H
#define HS_PIPE_H

#include "../core/core.h"

#define HS_PIPE_DEPTH	16
#define HS_PIPE_ENDS	2	/* threads: producer, consumer */

/**
 * struct hs_item - what the producer makes and seals, and the consumer opens and checks
 * @arg:	what it is made of
 * @made:	what was made of it
 * @version:	of the code that made it; 0: the original
 * @round:	the round that making and opening it are; its slot is NULL where the original made it
 */
struct hs_item {
	u64 arg;
	u64 made;
	u32 version;
	struct hs_round round;
};

/**
 * struct hs_pipe - the two threads' state; outlives the module that made it
 * @item:	a ring
 * @produced:	items ever put in; the producer's
 * @consumed:	items ever taken out; the consumer's
 * @mismatched:	of those, how many other code made than opened them, or were made wrong; the consumer's
 * @swapped:	of those, how many other code than the original made
 * @owner:	the module whose code the threads run; each thread holds it
 */
struct hs_pipe {
	struct hs_item item[HS_PIPE_DEPTH];
	u64 produced;
	u64 consumed;
	u64 mismatched;
	u64 swapped;
	struct module *owner;
};

/* Where the next item goes; NULL if there is no room. */
static inline struct hs_item *hs_pipe_room(struct hs_pipe *pipe)
{
	u64 end = pipe->produced;

	/* Pairs with hs_pipe_taken(): the item is free. */
	if (end - smp_load_acquire(&pipe->consumed) == HS_PIPE_DEPTH)
		return NULL;
	return &pipe->item[end % HS_PIPE_DEPTH];
}

static inline void hs_pipe_put(struct hs_pipe *pipe)
{
	smp_store_release(&pipe->produced, pipe->produced + 1);
}

/* The oldest item; NULL if there is none. */
static inline struct hs_item *hs_pipe_first(struct hs_pipe *pipe)
{
	u64 begin = pipe->consumed;

	/* Pairs with hs_pipe_put(): the item is whole. */
	if (smp_load_acquire(&pipe->produced) == begin)
		return NULL;
	return &pipe->item[begin % HS_PIPE_DEPTH];
}

static inline void hs_pipe_taken(struct hs_pipe *pipe, bool right)
{
	pipe->mismatched += !right;
	smp_store_release(&pipe->consumed, pipe->consumed + 1);
}

/* The original's way: what is made is mixed from what it is made of. */
static inline void hs_pipe_make(struct hs_pipe *pipe, struct hs_item *item)
{
	item->arg = pipe->produced;
	item->made = hs_mix(item->arg, 0);
	item->version = 0;
	item->round.slot = NULL;
}

static inline bool hs_pipe_open(const struct hs_item *item)
{
	return !item->version && item->made == hs_mix(item->arg, 0);
}

#endif /* HS_PIPE_H */
