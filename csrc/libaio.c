#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "libaio.h"
#include "process.h"
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The kernel's own header has the flags that libaio's lacks, and the same two structs by the same
 * names: they are renamed, and held against libaio's. */
#define iocb ioc_kernel_iocb
#define io_event ioc_kernel_event
#include <linux/aio_abi.h>
#undef iocb
#undef io_event

#ifndef IOCB_FLAG_IOPRIO
#define IOCB_FLAG_IOPRIO (1 << 1) /* Linux 4.18 */
#endif

_Static_assert(sizeof(struct iocb) == sizeof(struct ioc_kernel_iocb), "libaio's iocb is the kernel's");
_Static_assert(sizeof(struct io_event) == sizeof(struct ioc_kernel_event), "libaio's event is the kernel's");
_Static_assert(sizeof(struct ioc_laio_event) == sizeof(struct ioc_kernel_event), "and so is ours");
_Static_assert(offsetof(struct ioc_laio_event, res2) == offsetof(struct ioc_kernel_event, res2), "field by field");

static int usable(const struct ioc_laio_context *c)
{
	if (c->process && c->process != ioc_process())
		return IOC_LAIO_FORKED;
	return __atomic_load_n(&c->id, __ATOMIC_ACQUIRE) ? 0 : -EINVAL;
}

static void fill(struct iocb *iocb, const struct ioc_laio_entry *e, uint64_t serial)
{
	struct ioc_kernel_iocb k;

	memset(&k, 0, sizeof(k));
	k.aio_data = serial;
	k.aio_rw_flags = (__kernel_rwf_t)e->rw_flags;
	k.aio_lio_opcode = (__u16)e->opcode;
	k.aio_fildes = (__u32)e->fd;
	k.aio_buf = e->buf;
	k.aio_nbytes = e->nbytes;
	k.aio_offset = e->offset;
	if (e->resfd >= 0) {
		k.aio_flags |= IOCB_FLAG_RESFD;
		k.aio_resfd = (__u32)e->resfd;
	}
	if (e->ioprio >= 0) {
		k.aio_flags |= IOCB_FLAG_IOPRIO;
		k.aio_reqprio = (__s16)e->ioprio;
	}
	memcpy(iocb, &k, sizeof(k));
}

int ioc_laio_wake(struct ioc_laio_context *c)
{
	struct ioc_laio_entry e = { .buf = POLLIN, .fd = c->wake_fd, .resfd = -1, .ioprio = -1, .opcode = IO_CMD_POLL };
	struct iocb *list = &c->wake;
	int res = usable(c);

	if (res || !__atomic_exchange_n(&c->woken, 0, __ATOMIC_ACQ_REL))
		return res;
	fill(&c->wake, &e, 0);
	res = io_submit(c->id, 1, &list);
	if (res != 1)
		__atomic_store_n(&c->woken, 1, __ATOMIC_RELEASE);
	return res < 0 ? res : 0;
}

int ioc_laio_setup(struct ioc_laio_context *c, int nr, int wake_fd)
{
	int res;

	c->process = ioc_process();
	c->wake_fd = wake_fd;
	res = io_setup(nr, &c->id);
	if (res)
		return res;
	c->woken = 1;
	return 0;
}

int ioc_laio_open(const struct ioc_laio_context *c)
{
	return usable(c) == 0;
}

int ioc_laio_destroy(struct ioc_laio_context *c)
{
	io_context_t id;
	int res = usable(c);

	if (res)
		return res;
	/* A second io_destroy could hit a context that was since made at the same address. */
	id = __atomic_exchange_n(&c->id, NULL, __ATOMIC_ACQ_REL);
	return id ? io_destroy(id) : -EINVAL;
}

int ioc_laio_submit(struct ioc_laio_context *c, struct iocb *iocbs, const struct ioc_laio_entry *entries,
		   long n, uint64_t serial, struct ioc_laio_batch *batch)
{
	struct iocb *few[64], **list = few;
	int res = usable(c);
	long i;

	if (res)
		return res;
	if (batch->called) /* given up by a signal handler that closed the context just before this call */
		return -EINVAL;
	if (n > 64 && !(list = malloc((size_t)n * sizeof(*list))))
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		fill(&iocbs[i], &entries[i], serial + (uint64_t)i);
		list[i] = &iocbs[i];
	}
	batch->called = 1;
	res = io_submit(c->id, n, list);
	batch->done = res > 0 ? res : 0;
	batch->returned = 1;
	if (list != few)
		free(list);
	return res;
}

int ioc_laio_cancel(struct ioc_laio_context *c, struct iocb *iocb, struct ioc_laio_events *out)
{
	int res = usable(c);

	out->count = 0;
	if (res)
		return res;
	res = io_cancel(c->id, iocb, (struct io_event *)&out->event[0]);
	out->count = res == 0;
	return res;
}

int ioc_laio_cancel_many(struct ioc_laio_context *c, struct iocb **iocbs, long n, struct ioc_laio_events *out)
{
	int res = usable(c), accepted = 0;
	long i;

	out->count = 0;
	if (res)
		return res;
	for (i = 0; i < n; i++) {
		res = io_cancel(c->id, iocbs[i], (struct io_event *)&out->event[out->count]);
		out->count += res == 0;
		accepted += res == 0 || res == -EINPROGRESS;
	}
	return accepted;
}

void ioc_laio_cancel_each(struct ioc_laio_context *c, struct iocb **iocbs, long n, int *answers)
{
	struct io_event unused; /* no kernel since 3.10 hands an event over */
	int res = usable(c);
	long i;

	for (i = 0; i < n; i++)
		answers[i] = res ? res : io_cancel(c->id, iocbs[i], &unused);
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* libaio's own io_getevents looks into the ring from user space first, which is a read of unmapped
 * memory when another thread has destroyed the context: hence the system call. It is asked for one
 * event at a time of waiting, not for min: the kernel would hold back the wake-up's event, too. */
int ioc_laio_getevents(struct ioc_laio_context *c, long min, long max, int64_t deadline,
		      struct ioc_laio_events *out)
{
	struct {
		__kernel_long_t sec, nsec; /* as this system call has them, also where time_t is wider */
	} wait;
	int64_t left = 0;
	long i, got, kept, woken = 0;
	int res = usable(c);

	out->count = 0;
	if (res)
		return res;
	for (;;) {
		if (deadline > 0) {
			left = deadline - now_ns();
			left = left > 0 ? left : 0;
		}
		wait.sec = (__kernel_long_t)(left / 1000000000);
		wait.nsec = (__kernel_long_t)(left % 1000000000);
		got = syscall(SYS_io_getevents, c->id, out->count < min ? 1L : 0L, max - out->count,
			      &out->event[out->count], deadline < 0 ? NULL : &wait);
		if (got < 0)
			return -errno;
		for (i = kept = 0; i < got; i++) {
			struct ioc_laio_event *e = &out->event[out->count];

			if (e[i].data)
				e[kept++] = e[i];
			else
				woken = 1;
		}
		out->count += kept;
		if (woken)
			__atomic_store_n(&c->woken, 1, __ATOMIC_RELEASE);
		if (woken || out->count >= min || out->count >= max || (deadline >= 0 && !left))
			return (int)out->count;
	}
}
