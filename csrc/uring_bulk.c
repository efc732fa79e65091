/* Requests that are made here, of nothing but numbers: single polls and cancels, many alike, wake-ups. What
 * they cost from Python is the call; so each does all that there is to do in one.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "uring_inside.h"
#include <string.h>
#include <sys/stat.h>

int ioc_bare_add(struct ioc_ring *r, const uint64_t *user_data, unsigned n)
{
	int res = begin(r);

	if (res)
		return res;
	res = ioc_numbers_grow(&r->bare, n);
	for (unsigned i = 0; !res && i < n; i++)
		ioc_numbers_add(&r->bare, user_data[i]);
	leave(r);
	unlock(r);
	return res;
}

int ioc_bare_take(struct ioc_ring *r, uint64_t user_data)
{
	int res = begin(r);

	if (res)
		return res;
	res = ioc_numbers_take(&r->bare, user_data);
	leave(r);
	unlock(r);
	return res;
}

/* One request without memory, known by its number only: fills, submits, waits and reaps. */
static int one(struct ioc_ring *r, struct io_uring_sqe *sqe, unsigned wait_nr, struct ioc_out *out)
{
	unsigned moved = 0;
	int res = begin(r);

	if (res)
		return res;
	res = ioc_numbers_grow(&r->bare, 1);
	if (!res && !io_uring_sq_space_left(&r->ring))
		res = -EAGAIN;
	if (res) {
		leave(r);
		unlock(r);
		return res;
	}
	ioc_numbers_add(&r->bare, sqe->user_data);
	return ioc_go(r, (const uint8_t *)sqe, 1, wait_nr, -1, out, &moved);
}

int ioc_poll_one(struct ioc_ring *r, int fd, unsigned poll_mask, uint64_t user_data)
{
	struct io_uring_sqe sqe;

	memset(&sqe, 0, sizeof(sqe));
	io_uring_prep_poll_add(&sqe, fd, poll_mask);
	sqe.user_data = user_data;
	return one(r, &sqe, 0, NULL);
}

/* `how` is the number of completions to wait for, and the cancel flags from bit 16 on; `seen`
 * is 0 or 1: where it is the token of *r->out, Python has taken what is there. What this call brings
 * gets the other token, which Python stores when it takes it: so the taking needs no call, and a signal
 * between this call and the taking loses nothing. Returns a negated errno, or how many are in *r->out: with
 * IOC_OTHERS set where the bindings' ledger must hear of some; with one of the other bits where they
 * are the cancel's 0 and the target's -ECANCELED, in that order or the other, and nothing else: that
 * is nearly always so, and saves Python the reading. */
int ioc_cancel_one(struct ioc_ring *r, uint64_t target, uint64_t user_data, unsigned how, unsigned seen)
{
	struct io_uring_sqe sqe;
	struct ioc_out *out = r->out;
	unsigned wanted = how & 0xffff;
	int res;

	if (out->token == seen)
		out->n = 0;
	out->token = seen ^ 1;
	memset(&sqe, 0, sizeof(sqe));
	io_uring_prep_cancel64(&sqe, target, (int)(how >> 16));
	sqe.user_data = user_data;
	res = one(r, &sqe, wanted > out->n ? wanted - out->n : 0, out);
	if (res < 0)
		return res;
	if (out->n && out->others)
		return (int)(out->n | IOC_OTHERS);
	if (out->n == 2 && !out->cqe[0].flags && !out->cqe[1].flags) {
		const struct ioc_cqe *a = &out->cqe[0], *b = &out->cqe[1];

		if (a->user_data == user_data && !a->res && b->user_data == target && b->res == -ECANCELED)
			return IOC_CANCEL_FIRST;
		if (a->user_data == target && a->res == -ECANCELED && b->user_data == user_data && !b->res)
			return IOC_TARGET_FIRST;
	}
	return (int)out->n;
}

/* Fills n entries alike but for the columns that are not NULL; submits nothing. All or none. Entries
 * that may end silently are not counted: the bindings remember their numbers. */
int ioc_push_many(struct ioc_ring *r, const uint8_t *entry, unsigned n, const uint64_t *user_data,
		  const uint64_t *addr, const int32_t *fd)
{
	struct io_uring_sqe template;
	int res = begin(r);

	if (res)
		return res;
	memcpy(&template, entry, 64);
	if (n > io_uring_sq_space_left(&r->ring))
		res = -EAGAIN;
	else if (!(template.flags & IOSQE_CQE_SKIP_SUCCESS))
		res = ioc_numbers_grow(&r->bare, n);
	if (!res) {
		for (unsigned i = 0; i < n; i++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);

			memcpy(sqe, &template, 64);
			if (user_data)
				sqe->user_data = user_data[i];
			if (addr)
				sqe->addr = addr[i];
			if (fd)
				sqe->fd = fd[i];
			if (!(template.flags & IOSQE_CQE_SKIP_SUCCESS))
				ioc_numbers_add(&r->bare, sqe->user_data);
		}
		res = (int)n;
	}
	leave(r);
	unlock(r);
	return res;
}

/* Cancels by user_data, in the order given: fills, submits and reaps, in rounds of what the queue holds, so
 * that a full queue never keeps a cancel out. Each one's own number is its target's with the bits of `mark`;
 * `flags` are the entries' (CQE_SKIP_SUCCESS where there is such a thing). sent[0] says how many were moved
 * into the queue; sent[1] how many of the completions in *out, from its first on, are the targets' own, in the
 * order given, each -ECANCELED and its last. Returns 0 or a negated errno. */
int ioc_cancel_many(struct ioc_ring *r, const uint64_t *tokens, unsigned n, uint64_t mark, unsigned flags,
		    struct ioc_out *out, unsigned *sent)
{
	int res = begin(r), idle = 0;
	unsigned same = 0;

	if (res)
		return res;
	do {
		struct io_uring_sqe *sqe;
		unsigned to_submit, fresh = 0, before = out->n, sq_flags;

		while (*sent < n && (sqe = io_uring_get_sqe(&r->ring))) {
			memset(sqe, 0, sizeof(*sqe));
			io_uring_prep_cancel64(sqe, tokens[*sent], 0);
			sqe->flags = (uint8_t)flags;
			sqe->user_data = tokens[*sent] | mark;
			++*sent;
		}
		to_submit = flush(&r->ring, &fresh);
		sq_flags = IO_URING_READ_ONCE(*r->ring.sq.kflags);
		res = enter(r, to_submit, 0,
			    sq_flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN) ? IORING_ENTER_GETEVENTS : 0, -1);
		unlock(r); /* reap takes it */
		ioc_reap(r, out);
		pthread_mutex_lock(&r->lock);
		/* EBUSY: the completion queue is full, and was emptied just now. EAGAIN: no memory for a moment. */
		if (res == -EBUSY || res == -EAGAIN || res == -EINTR)
			idle = out->n == before ? idle + 1 : 0;
		else if (res < 0)
			break;
		else
			idle = res == 0 && to_submit ? idle + 1 : 0;
	} while ((*sent < n || r->ring.sq.sqe_tail != io_uring_smp_load_acquire(r->ring.sq.khead)) && idle < 100);
	if (res > 0)
		res = 0;
	while (same < n && same < out->n && out->cqe[same].user_data == tokens[same] &&
	       out->cqe[same].res == -ECANCELED && !out->cqe[same].flags)
		same++;
	sent[1] = same;
	leave(r);
	unlock(r);
	return res;
}

/* Completions for a thread that waits in ioc_enter, as many as it wants. */
int ioc_wake(struct ioc_ring *r, uint64_t user_data)
{
	int res = begin(r);
	struct io_uring_sqe *sqe;
	unsigned fresh = 0;

	if (res)
		return res;
	ioc_numbers_grow(&r->bare, 1); /* fails only without memory: then the number is not known, which hurts nobody */
	for (unsigned i = 0; i < (r->wanted ? r->wanted : 1); i++) {
		sqe = io_uring_get_sqe(&r->ring);
		if (!sqe) {
			enter(r, flush(&r->ring, &fresh), 0, IORING_ENTER_SQ_WAKEUP, -1);
			sqe = io_uring_get_sqe(&r->ring);
		}
		if (!sqe)
			break;
		memset(sqe, 0, sizeof(*sqe));
		io_uring_prep_nop(sqe);
		sqe->user_data = user_data;
		if (r->bare.counts)
			ioc_numbers_add(&r->bare, user_data);
	}
	res = enter(r, flush(&r->ring, &fresh), 0, IORING_ENTER_SQ_WAKEUP, -1);
	leave(r);
	unlock(r);
	return res;
}

/* ids[2i], ids[2i + 1]: device and inode of what entry i reads or writes, where it is a pipe or a socket: no
 * two of these share a number while either lives, nor soon after. 0, 0 for all else: two eventfds, say, have
 * the same inode. */
void ioc_identify(const uint8_t *entries, unsigned n, uint64_t *ids)
{
	for (unsigned i = 0; i < n; i++) {
		struct io_uring_sqe sqe;
		struct stat st;

		memcpy(&sqe, entries + i * sizeof(sqe), sizeof(sqe)); /* Python's bytes are aligned to nothing */
		ids[2 * i] = ids[2 * i + 1] = 0;
		if (sqe.fd >= 0 && !(sqe.flags & IOSQE_FIXED_FILE) && !fstat(sqe.fd, &st) &&
		    (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))) {
			ids[2 * i] = st.st_dev;
			ids[2 * i + 1] = st.st_ino;
		}
	}
}
