/* A multiset of 64-bit numbers. */
#ifndef IOC_NUMBERS_H
#define IOC_NUMBERS_H
#include <stdint.h>

struct ioc_numbers {
	uint64_t *keys;
	uint32_t *counts;
	unsigned mask, used;
};

/* Makes room for `more`: 0, or -ENOMEM. */
int ioc_numbers_grow(struct ioc_numbers *b, unsigned more);
/* Adds one; room was made before. */
void ioc_numbers_add(struct ioc_numbers *b, uint64_t key);
/* Takes one away: 1, or 0 where there was none. */
int ioc_numbers_take(struct ioc_numbers *b, uint64_t key);

#endif
