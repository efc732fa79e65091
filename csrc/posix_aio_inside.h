/* What posix_aio.c and posix_aio_musl.c share, and what each C library has in the other's place. */
#ifndef IOC_POSIX_AIO_INSIDE_H
#define IOC_POSIX_AIO_INSIDE_H
#include "posix_aio.h"

enum { IOC_IDLE, IOC_STARTING, IOC_STARTED };

static inline int negated(void)
{
	return errno ? -errno : -EAGAIN;
}

static inline void hold(struct ioc_notice *n)
{
	if (n)
		__atomic_add_fetch(&n->pending, 1, __ATOMIC_ACQ_REL);
}

static inline void drop(struct ioc_notice *n)
{
	if (n)
		__atomic_sub_fetch(&n->pending, 1, __ATOMIC_ACQ_REL);
}

static inline void set_state(struct ioc_aio *p, int state)
{
	__atomic_store_n(&p->state, state, __ATOMIC_RELEASE);
}

/* The end of a start, `refused` or not; 0 or a negated errno. */
static inline int claimed(struct ioc_aio *p, int refused)
{
	if (!refused) {
		set_state(p, IOC_STARTED);
		return 0;
	}
	refused = negated();
	drop(p->notice);
	set_state(p, refused);
	return refused;
}

/* Started with `op` (LIO_READ, LIO_WRITE, O_SYNC, O_DSYNC): what the C library says. */
static inline int give(struct ioc_aio *p, int op)
{
	return op == LIO_READ ? aio_read(&p->cb) : op == LIO_WRITE ? aio_write(&p->cb) : aio_fsync(op, &p->cb);
}

/* By the C library: the notification of an operation to be; its start; a list's; the error of one that was
 * started; a cancel; no notification any more. */
#if IOC_AIO_GLIBC
static inline void clib_tell(struct ioc_aio *p, const struct ioc_sigevent *sigevent)
{
	p->cb.aio_sigevent = sigevent->ev; /* zeroed would be a signal of number 0 */
}

static inline int clib_give(struct ioc_aio *p, int op)
{
	return give(p, op);
}

static inline int clib_error(struct ioc_aio *p)
{
	return aio_error(&p->cb);
}

static inline int clib_cancel(int fd, struct ioc_aio *p)
{
	return aio_cancel(fd, p ? &p->cb : NULL);
}

static inline void clib_mute(struct ioc_aio *p)
{
	__atomic_store_n(&p->cb.aio_sigevent.sigev_notify, SIGEV_NONE, __ATOMIC_RELEASE);
}
#else
#define clib_tell ioc_musl_tell
#define clib_give ioc_musl_give
#define clib_error ioc_musl_error
#define clib_cancel ioc_musl_cancel
#define clib_mute ioc_musl_mute
void ioc_musl_tell(struct ioc_aio *p, const struct ioc_sigevent *sigevent);
int ioc_musl_give(struct ioc_aio *p, int op);
int ioc_musl_list(struct ioc_aio **list, int n, const struct ioc_sigevent *sigevent);
int ioc_musl_error(struct ioc_aio *p);
int ioc_musl_cancel(int fd, struct ioc_aio *p);
void ioc_musl_mute(struct ioc_aio *p);
#endif

#endif
