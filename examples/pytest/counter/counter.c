// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module to test: /sys/module/counter/parameters/count counts how often it was written to, and complains of a 13.
 */
#include <linux/module.h>

static unsigned int count;

static int count_write(const char *value, const struct kernel_param *parameter)
{
	unsigned int number;
	int err = kstrtouint(value, 0, &number);

	if (err)
		return err;
	WARN(number == 13, "counter: 13 is no number to count by\n");
	count += number;
	return 0;
}

static const struct kernel_param_ops count_ops = {
	.set = count_write,
	.get = param_get_uint,
};
module_param_cb(count, &count_ops, &count, 0644);

static int __init counter_init(void)
{
	pr_info("counter: here\n");
	return 0;
}
module_init(counter_init);

static void __exit counter_exit(void)
{
	pr_info("counter: gone at %u\n", count);
}
module_exit(counter_exit);

MODULE_DESCRIPTION("a module to test");
MODULE_LICENSE("GPL");
