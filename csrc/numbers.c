/* Requests of the bulk calls are known by number only: how many are in flight with each user_data. An
 * open hash table; slot i is empty where counts[i] is 0. The caller has the lock. */
#include "numbers.h"
#include <errno.h>
#include <stdlib.h>

static unsigned slot_of(const struct ioc_numbers *b, uint64_t key)
{
	unsigned i = (unsigned)((key * 0x9E3779B97F4A7C15u) >> 32) & b->mask;

	while (b->counts[i] && b->keys[i] != key)
		i = (i + 1) & b->mask;
	return i;
}

int ioc_numbers_grow(struct ioc_numbers *b, unsigned more)
{
	struct ioc_numbers new = { NULL, NULL, b->mask ? b->mask : 63, b->used };

	while ((uint64_t)(b->used + more) * 2 > new.mask)
		new.mask = new.mask * 2 + 1;
	if (b->counts && new.mask == b->mask)
		return 0;
	new.keys = malloc(((size_t)new.mask + 1) * sizeof(*new.keys));
	new.counts = calloc((size_t)new.mask + 1, sizeof(*new.counts));
	if (!new.keys || !new.counts) {
		free(new.keys);
		free(new.counts);
		return -ENOMEM;
	}
	for (unsigned i = 0; b->counts && i <= b->mask; i++)
		if (b->counts[i]) {
			unsigned j = slot_of(&new, b->keys[i]);

			new.keys[j] = b->keys[i];
			new.counts[j] = b->counts[i];
		}
	free(b->keys);
	free(b->counts);
	*b = new;
	return 0;
}

/* Room was made before. */
void ioc_numbers_add(struct ioc_numbers *b, uint64_t key)
{
	unsigned i = slot_of(b, key);

	if (!b->counts[i]++)
		b->used++;
	b->keys[i] = key;
}

/* One request fewer with this number; 0 where there was none. */
int ioc_numbers_take(struct ioc_numbers *b, uint64_t key)
{
	unsigned i, j;

	if (!b->used)
		return 0;
	i = slot_of(b, key);
	if (!b->counts[i])
		return 0;
	if (--b->counts[i])
		return 1;
	b->used--;
	/* Close the gap, so that a search never stops short of what lies behind it. */
	for (j = (i + 1) & b->mask; b->counts[j]; j = (j + 1) & b->mask) {
		unsigned home = (unsigned)((b->keys[j] * 0x9E3779B97F4A7C15u) >> 32) & b->mask;

		if (((j - home) & b->mask) >= ((j - i) & b->mask)) {
			b->keys[i] = b->keys[j];
			b->counts[i] = b->counts[j];
			b->counts[j] = 0;
			i = j;
		}
	}
	return 1;
}
