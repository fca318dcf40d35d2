/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A mutant of a mechanism: a module that registers it once more, under the same name; the last one is used.
 *
 * Usage: #include "../mechanisms/NAME.c" with something in it redefined, then HS_MUTANT_OF(NAME);
 */
#ifndef HS_MUTANT_MECHANISM_H
#define HS_MUTANT_MECHANISM_H

#define HS_MUTANT_OF(mechanism)					\
static int __init mutant_init(void)				\
{								\
	hs_mechanism_register(&(mechanism));			\
	return 0;						\
}								\
module_init(mutant_init);					\
static void __exit mutant_exit(void)				\
{								\
	hs_mechanism_unregister(&(mechanism));			\
}								\
module_exit(mutant_exit);					\
MODULE_DESCRIPTION("hotswap mutant of " #mechanism);		\
MODULE_LICENSE("GPL");						\
MODULE_INFO(replaces, "hs_" #mechanism)

#endif /* HS_MUTANT_MECHANISM_H */
