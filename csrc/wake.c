#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "wake.h"
#include "process.h"
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct ioc_wake *ioc_wake_new(int pipe)
{
	struct ioc_wake *w = calloc(1, sizeof(*w));
	int ends[2];

	if (!w)
		return NULL;
	if (pipe) {
		if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
			ends[0] = -1;
	} else {
		ends[0] = ends[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	if (ends[0] < 0) {
		free(w);
		return NULL;
	}
	w->fd = ends[0];
	w->put = ends[1];
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
	unsigned char none = 0; /* no signal's number */
	int pipe = w->put != w->fd;

	if (w->process != ioc_process()) /* a child's write would wake the parent */
		return;
	__atomic_fetch_add(&w->users, 1, __ATOMIC_SEQ_CST);
	/* EAGAIN: it was written to until it was full, and is awake. */
	if (!__atomic_load_n(&w->closed, __ATOMIC_SEQ_CST) &&
	    write(w->put, pipe ? (void *)&none : (void *)&one, pipe ? sizeof(none) : sizeof(one)) < 0)
		one = 0;
	__atomic_fetch_sub(&w->users, 1, __ATOMIC_SEQ_CST);
}

void ioc_wake_clear(struct ioc_wake *w)
{
	unsigned char bytes[4096];
	uint64_t many;
	ssize_t r, i;
	int k;

	if (w->process != ioc_process() || w->closed)
		return;
	if (w->put == w->fd) {
		if (read(w->fd, &many, sizeof(many)) < 0)
			many = 0; /* EAGAIN: nobody has written since */
		return;
	}
	do {
		r = read(w->fd, bytes, sizeof(bytes));
		for (i = 0; i < r; i++)
		{ /* each signal once, as the kernel has them pending: so there is always room */
			for (k = 0; k < w->signals && w->numbers[k] != bytes[i]; k++)
				;
			if (bytes[i] && k == w->signals && k < (int)sizeof(w->numbers))
				w->numbers[w->signals++] = bytes[i];
		}
	} while (r == (ssize_t)sizeof(bytes));
}

/* By the one thread that owns it. A child closes its own copy: nobody else is inside there. */
void ioc_wake_close(struct ioc_wake *w)
{
	if (w->closed)
		return;
	__atomic_store_n(&w->closed, 1, __ATOMIC_SEQ_CST);
	while (w->process == ioc_process() && __atomic_load_n(&w->users, __ATOMIC_SEQ_CST))
		sched_yield();
	if (w->put != w->fd)
		close(w->put);
	close(w->fd);
	w->fd = w->put = -1;
}
