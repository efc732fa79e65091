/* What uring.c and uring_bulk.c share: the way into a ring, and into the kernel. */
#ifndef IOC_URING_INSIDE_H
#define IOC_URING_INSIDE_H
#include "uring.h"
#include "process.h"
#include <sys/syscall.h>
#include <unistd.h>

enum { IOC_NEW, IOC_OPEN, IOC_GONE };

/* Takes the lock and says that the caller is inside. */
static inline int begin(struct ioc_ring *r)
{
	if (r->state == IOC_OPEN && r->process != ioc_process())
		return IOC_FORKED;
	pthread_mutex_lock(&r->lock);
	if (r->state != IOC_OPEN || (r->closing && !pthread_equal(r->closer, pthread_self()))) {
		pthread_mutex_unlock(&r->lock);
		return IOC_CLOSED;
	}
	__atomic_fetch_add(&r->users, 1, __ATOMIC_ACQUIRE);
	return 0;
}

static inline void unlock(struct ioc_ring *r)
{
	pthread_mutex_unlock(&r->lock);
}

static inline void leave(struct ioc_ring *r)
{
	__atomic_fetch_sub(&r->users, 1, __ATOMIC_RELEASE);
}

/* Publishes the filled entries, adds their number to *fresh, and returns how many the kernel has not
 * taken yet. Entry i always sits in slot i of the index array, which is what every liburing keeps it to. */
static inline unsigned flush(struct io_uring *ring, unsigned *fresh)
{
	struct io_uring_sq *sq = &ring->sq;
	unsigned tail = *sq->ktail, end = sq->sqe_tail, mask = *sq->kring_mask;

	if (sq->array)
		for (unsigned i = tail; i != end; i++)
			sq->array[i & mask] = i & mask;
	sq->sqe_head = end;
	*fresh += end - tail;
	if (tail != end)
		io_uring_smp_store_release(sq->ktail, end);
	return end - io_uring_smp_load_acquire(sq->khead);
}

static inline unsigned cq_ready(struct ioc_ring *r)
{
	return io_uring_smp_load_acquire(r->ring.cq.ktail) - *r->ring.cq.khead;
}

static inline int enter(struct ioc_ring *r, unsigned to_submit, unsigned wait_nr, unsigned flags, int64_t timeout_ns)
{
	struct ioc_timespec ts = { timeout_ns / 1000000000, timeout_ns % 1000000000 };
	struct io_uring_getevents_arg arg = { .ts = (uint64_t)(uintptr_t)&ts };
	void *argp = NULL;
	size_t size = 0;
	long res;

	if (timeout_ns >= 0) {
		flags |= IORING_ENTER_EXT_ARG;
		argp = &arg;
		size = sizeof(arg);
	}
	res = syscall(__NR_io_uring_enter, r->fd, to_submit, wait_nr, flags, argp, size);
	return res < 0 ? -errno : (int)res;
}

/* See uring.c. */
void ioc_reap(struct ioc_ring *r, struct ioc_out *out);
int ioc_go(struct ioc_ring *r, const uint8_t *entries, unsigned n, unsigned wait_nr, int64_t timeout_ns,
	   struct ioc_out *out, unsigned *moved);
#endif
