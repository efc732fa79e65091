/* The ring itself (set-up, mapping, tear-down, buffer rings) is liburing's. Entering the kernel is
 * done here, because one call has to move prepared entries into the queue, submit them, wait with a
 * limit and bring the completions back: liburing's own calls for that differ from 2.2 to 2.15 in what
 * they return, and each call from Python costs as much as the work.
 *
 * Threads: the lock guards the submission queue and the life of the ring. Only one thread at a time
 * reaps; the bindings see to that.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "uring_inside.h"
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct io_uring_sqe) == 64, "the bindings fill entries of 64 bytes");
_Static_assert(offsetof(struct io_uring_sqe, user_data) == 32 && offsetof(struct io_uring_sqe, buf_index) == 40 &&
		       offsetof(struct io_uring_sqe, splice_fd_in) == 44 && offsetof(struct io_uring_sqe, len) == 24,
	       "the bindings fill entries by these offsets");
_Static_assert(sizeof(struct io_uring_cqe) == sizeof(struct ioc_cqe), "completions are handed on as they are");

struct ioc_ring *ioc_ring_new(void)
{
	struct ioc_ring *r = calloc(1, sizeof(*r));

	if (r) {
		pthread_mutex_init(&r->lock, NULL);
		r->fd = -1;
	}
	return r;
}

void ioc_ring_free(struct ioc_ring *r)
{
	if (r->state == IOC_OPEN) /* never closed: the kernel may still use its memory, so it stays */
		return;
	pthread_mutex_destroy(&r->lock);
	free(r->bare.keys);
	free(r->bare.counts);
	free(r);
}

int ioc_ring_setup(struct ioc_ring *r, unsigned entries, unsigned flags, unsigned cq_entries,
		   unsigned sq_thread_idle, int wq_fd)
{
	struct io_uring_params p;
	int res;

	memset(&p, 0, sizeof(p));
	p.flags = flags;
	p.cq_entries = cq_entries;
	p.sq_thread_idle = sq_thread_idle;
	if (wq_fd >= 0)
		p.wq_fd = (unsigned)wq_fd;
	res = io_uring_queue_init_params(entries, &r->ring, &p);
	if (res < 0)
		return res;
	/* A child that had the mapping could submit to its parent's ring. */
	res = io_uring_ring_dontfork(&r->ring);
	if (res < 0) {
		io_uring_queue_exit(&r->ring);
		return res;
	}
	r->process = ioc_process();
	r->features = p.features;
	r->flags = p.flags;
	r->sq_entries = p.sq_entries;
	r->cq_entries = p.cq_entries;
	r->fd = r->ring.ring_fd;
	r->ext_arg = !!(p.features & IORING_FEAT_EXT_ARG);
	r->state = IOC_OPEN;
	return 0;
}

/* From now on only the calling thread gets in: what another has not handed over by now, it never will. */
int ioc_ring_closing(struct ioc_ring *r, int closing)
{
	int res = begin(r);

	if (res)
		return res;
	r->closer = pthread_self();
	r->closing = closing;
	leave(r);
	unlock(r);
	return 0;
}

int ioc_ring_exit(struct ioc_ring *r)
{
	int res = begin(r);

	if (res)
		return res;
	leave(r);
	if (__atomic_load_n(&r->users, __ATOMIC_ACQUIRE)) {
		unlock(r);
		return IOC_IN_USE;
	}
	r->state = IOC_GONE;
	io_uring_queue_exit(&r->ring);
	r->fd = -1;
	unlock(r);
	return 0;
}

/* In a forked child: the mapping is not there and the lock may be held by a thread that is not. */
void ioc_ring_forked(struct ioc_ring *r)
{
	if (r->state == IOC_OPEN) {
		r->state = IOC_GONE;
		close(r->fd);
		r->fd = -1;
		pthread_mutex_init(&r->lock, NULL);
	}
}

/* Moves up to n entries into the queue; the rest finds no room. */
static unsigned fill(struct ioc_ring *r, const uint8_t *entries, unsigned n)
{
	struct io_uring_sqe *sqe;
	unsigned i;

	for (i = 0; i < n && (sqe = io_uring_get_sqe(&r->ring)); i++)
		memcpy(sqe, entries + 64 * (size_t)i, 64);
	return i;
}

/* Appends what is there to *out, and notes which completions are the last of a request that the
 * bindings keep account of: those without F_MORE that no bulk request can have. */
void ioc_reap(struct ioc_ring *r, struct ioc_out *out)
{
	struct io_uring_cq *cq = &r->ring.cq;
	unsigned head = *cq->khead, n = io_uring_smp_load_acquire(cq->ktail) - head, mask = *cq->kring_mask;

	if (!out->n)
		out->others = 0;
	if (n > out->max - out->n)
		n = out->max - out->n;
	if (!n)
		return;
	pthread_mutex_lock(&r->lock);
	for (unsigned i = 0; i < n; i++) {
		const struct io_uring_cqe *c = &cq->cqes[(head + i) & mask];

		out->cqe[out->n + i] = (struct ioc_cqe){ c->user_data, c->res, c->flags };
		if (!(c->flags & IORING_CQE_F_MORE) && !ioc_numbers_take(&r->bare, c->user_data))
			out->other[out->others++] = out->n + i;
	}
	pthread_mutex_unlock(&r->lock);
	out->n += n;
	io_uring_smp_store_release(cq->khead, head + n);
}

/* Called with the lock held, which it gives back.
 * Moves n entries into the queue, submits all that is there (n IOC_NO_SUBMIT: neither), waits until wait_nr
 * completions are there or timeout_ns (< 0: no limit) is over or a signal comes, and appends what is there
 * to *out (NULL: leaves it). Returns how many the kernel took, or a negated errno. *moved (may be NULL) says
 * how many were moved into the queue; it, and *out, hold also when a signal's exception in Python comes
 * before the result of this call is stored. */
int ioc_go(struct ioc_ring *r, const uint8_t *entries, unsigned n, unsigned wait_nr, int64_t timeout_ns,
	   struct ioc_out *out, unsigned *moved)
{
	unsigned to_submit, taken, flags = 0, sq_flags, fresh = 0;
	int res = 0, total = 0, poll_after = 0, submit = n != IOC_NO_SUBMIT;

	to_submit = 0;
	while (submit) {
		/* Links hold within one submission: where not all fits behind what is in the queue, that goes first. */
		taken = n > io_uring_sq_space_left(&r->ring) && n <= r->sq_entries ? 0 : fill(r, entries, n);
		entries += 64 * (size_t)taken;
		n -= taken;
		if (moved)
			*moved += taken;
		to_submit = flush(&r->ring, &fresh);
		if (!n || r->flags & IORING_SETUP_SQPOLL)
			break;
		/* More than the queue holds: what is in it goes first. */
		res = enter(r, to_submit, 0, 0, -1);
		if (res < (int)to_submit) {
			if (res > 0)
				total += res;
			unlock(r);
			leave(r);
			return total ? total : res;
		}
		total += res;
	}
	if (submit && r->flags & IORING_SETUP_SQPOLL) {
		/* The kernel's thread takes them by itself, but for when it sleeps. */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (IO_URING_READ_ONCE(*r->ring.sq.kflags) & IORING_SQ_NEED_WAKEUP)
			flags |= IORING_ENTER_SQ_WAKEUP;
		else if (!wait_nr)
			to_submit = 0;
	}
	sq_flags = IO_URING_READ_ONCE(*r->ring.sq.kflags);
	if (out && cq_ready(r) >= wait_nr && wait_nr)
		wait_nr = 0;
	/* Completions that were held back (the queue had no room), or wait for this thread to run its
	 * share of the work, come only to who asks for events. */
	if (wait_nr || sq_flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN) ||
	    (out && r->flags & (IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_IOPOLL)))
		flags |= IORING_ENTER_GETEVENTS;
	if (wait_nr && timeout_ns >= 0 && !r->ext_arg) { /* before 5.11: poll the ring's fd instead */
		poll_after = 1;
		wait_nr = 0;
	}
	if (wait_nr)
		r->wanted = wait_nr;
	if (wait_nr || poll_after) /* others may submit while this thread sleeps */
		unlock(r);
	if (to_submit || flags)
		res = enter(r, to_submit, wait_nr, flags, wait_nr ? timeout_ns : -1);
	if (wait_nr == 0 && !poll_after)
		unlock(r);
	if (res >= 0)
		total = r->flags & IORING_SETUP_SQPOLL ? (int)fresh : total + res;
	if (poll_after && res >= 0 && !cq_ready(r)) {
		struct pollfd pfd = { .fd = r->fd, .events = POLLIN };
		struct timespec ts = { timeout_ns / 1000000000, timeout_ns % 1000000000 };

		ppoll(&pfd, 1, &ts, NULL);
	}
	if (out)
		ioc_reap(r, out);
	leave(r);
	return res < 0 && res != -ETIME && !total ? res : total;
}

int ioc_enter(struct ioc_ring *r, const uint8_t *entries, unsigned n, unsigned wait_nr, int64_t timeout_ns,
	      struct ioc_out *out, unsigned *moved)
{
	int res = begin(r);

	return res ? res : ioc_go(r, entries, n, wait_nr, timeout_ns, out, moved);
}

/* Makes NOPs of the entries that the kernel has not taken: their completions come, their effects do not. */
int ioc_defuse(struct ioc_ring *r)
{
	int res = begin(r);
	struct io_uring_sq *sq = &r->ring.sq;

	if (res)
		return res;
	if (!(r->flags & IORING_SETUP_SQPOLL)) /* whose thread may be reading them */
		for (unsigned i = io_uring_smp_load_acquire(sq->khead); i != sq->sqe_tail; i++) {
			struct io_uring_sqe *sqe = &sq->sqes[i & *sq->kring_mask];
			uint64_t user_data = sqe->user_data;

			memset(sqe, 0, sizeof(*sqe));
			sqe->opcode = IORING_OP_NOP;
			sqe->user_data = user_data;
		}
	leave(r);
	unlock(r);
	return 0;
}

#define ASK(name, expression)                     \
	int64_t name(struct ioc_ring *r)          \
	{                                         \
		int64_t res = begin(r);           \
		if (res)                          \
			return res;               \
		res = (int64_t)(expression);      \
		leave(r);                         \
		unlock(r);                        \
		return res;                       \
	}
ASK(ioc_sq_ready, r->ring.sq.sqe_tail - io_uring_smp_load_acquire(r->ring.sq.khead))
ASK(ioc_cq_ready, cq_ready(r))
/* Whether there is anything to be reaped, or held back until somebody asks. */
ASK(ioc_came, cq_ready(r) || (IO_URING_READ_ONCE(*r->ring.sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)))
ASK(ioc_cq_overflow, IO_URING_READ_ONCE(*r->ring.cq.koverflow))

int ioc_register(struct ioc_ring *r, unsigned opcode, void *arg, unsigned nr)
{
	long res = begin(r);

	if (res)
		return (int)res;
	unlock(r);
	res = syscall(__NR_io_uring_register, r->fd, opcode, arg, nr);
	if (res < 0)
		res = -errno;
	leave(r);
	return (int)res;
}
