#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "wake.h"
#include "process.h"
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct ioc_wake *ioc_wake_new(void)
{
	struct ioc_wake *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->fd < 0) {
		free(w);
		return NULL;
	}
	w->process = ioc_process();
	return w;
}

void ioc_wake_free(struct ioc_wake *w)
{
	ioc_wake_close(w);
	free(w);
}

void ioc_wake_set(struct ioc_wake *w)
{
	uint64_t one = 1;

	if (w->process != ioc_process()) /* a child's write would wake the parent */
		return;
	__atomic_fetch_add(&w->users, 1, __ATOMIC_SEQ_CST);
	/* EAGAIN: it was written to 2^64 times without being read, and is awake. */
	if (!__atomic_load_n(&w->closed, __ATOMIC_SEQ_CST) && write(w->fd, &one, sizeof(one)) < 0)
		one = 0;
	__atomic_fetch_sub(&w->users, 1, __ATOMIC_SEQ_CST);
}

void ioc_wake_clear(struct ioc_wake *w)
{
	uint64_t many;

	if (w->process == ioc_process() && !w->closed && read(w->fd, &many, sizeof(many)) < 0)
		many = 0; /* EAGAIN: nobody has written since */
}

/* By the one thread that owns it. A child closes its own copy: nobody else is inside there. */
void ioc_wake_close(struct ioc_wake *w)
{
	if (w->closed)
		return;
	__atomic_store_n(&w->closed, 1, __ATOMIC_SEQ_CST);
	while (w->process == ioc_process() && __atomic_load_n(&w->users, __ATOMIC_SEQ_CST))
		sched_yield();
	close(w->fd);
	w->fd = -1;
}
