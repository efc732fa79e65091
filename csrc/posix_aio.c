/* Facts that the code below rests on:
 *
 * - glibc sets a request's error under its one lock and goes on reading the control block (for the
 *   notification) until it lets go of it; aio_error takes that lock. So once aio_error says anything but
 *   EINPROGRESS, nobody else touches the block. With musl posix_aio_musl.c sees to that.
 * - A refused aio_read leaves the block's error as it was (glibc, out of memory) or at EINPROGRESS for
 *   ever (musl): a refusal is remembered here, and the C library is not asked.
 * - aio_suspend and lio_listio of glibc put 40 and 8 bytes an entry on the caller's stack, unchecked.
 * - aio_suspend of glibc aborts on a tv_nsec outside 0..999999999, and without a time limit it does not
 *   come back for a signal whose handler has SA_RESTART.
 * - lio_listio(LIO_WAIT) of glibc that a signal interrupts leaves pointers to its dead stack frame in the
 *   requests. It is not called: the waiting is done with aio_suspend.
 * - After a fork, glibc's lock may be held for ever, and its count of threads is the parent's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "posix_aio_inside.h"
#include "process.h"
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY 1027 /* Linux 6.10 */
#endif

static uint64_t used_by; /* the process that used POSIX AIO first, 0 where none did */

/* Whether this process may call the C library's AIO; says that it does, before it does. */
static int may_use(void)
{
	uint64_t none = 0, here = ioc_process();

	return __atomic_compare_exchange_n(&used_by, &none, here, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) || none == here;
}

static int forked(void)
{
	uint64_t user = __atomic_load_n(&used_by, __ATOMIC_ACQUIRE);

	return user && user != ioc_process();
}

struct ioc_notice *ioc_notice_new(int fd)
{
	struct ioc_notice *n = malloc(sizeof(*n));

	if (n) {
		n->fd = fd;
		n->pending = 0;
		n->process = ioc_process();
	}
	return n;
}

/* Closes the notice's eventfd and frees it; 0, and nothing done, while a notification may still come. */
int ioc_notice_free(struct ioc_notice *n)
{
	/* In a forked child the threads that would notify do not exist. */
	if (n->process == ioc_process() && __atomic_load_n(&n->pending, __ATOMIC_ACQUIRE) > 0)
		return 0;
	close(n->fd);
	free(n);
	return 1;
}

/* What SIGEV_THREAD runs. An eventfd that is full is not written: its reader is awake without it, and
 * the write would block a thread of the C library. */
static void wake(union sigval value)
{
	struct ioc_notice *n = value.sival_ptr;
	struct pollfd room = {.fd = n->fd, .events = POLLOUT};
	uint64_t one = 1;

	if (poll(&room, 1, 0) == 1 && (room.revents & POLLOUT) && write(n->fd, &one, sizeof(one)) < 0)
		n = value.sival_ptr; /* nobody can be told */
	drop(n); /* from here on it may be freed */
}

void ioc_sigevent_none(struct ioc_sigevent *p)
{
	memset(p, 0, sizeof(*p));
	p->ev.sigev_notify = SIGEV_NONE;
}

void ioc_sigevent_signal(struct ioc_sigevent *p, int signo, int value)
{
	memset(p, 0, sizeof(*p));
	p->ev.sigev_notify = SIGEV_SIGNAL;
	p->ev.sigev_signo = signo;
	p->ev.sigev_value.sival_int = value;
}

void ioc_sigevent_thread(struct ioc_sigevent *p, struct ioc_notice *notice)
{
	memset(p, 0, sizeof(*p));
	p->ev.sigev_notify = SIGEV_THREAD;
	p->ev.sigev_notify_function = wake;
	p->ev.sigev_value.sival_ptr = notice;
	p->notice = notice;
}

int ioc_aio_fill(struct ioc_aio *p, int fd, void *buf, size_t nbytes, int64_t offset, int reqprio, int opcode,
		 const struct ioc_sigevent *sigevent)
{
	memset(p, 0, sizeof(*p));
	p->cb.aio_fildes = fd;
	p->cb.aio_buf = buf;
	p->cb.aio_nbytes = nbytes;
	p->cb.aio_offset = (off_t)offset;
	p->cb.aio_reqprio = reqprio;
	p->cb.aio_lio_opcode = opcode;
	clib_tell(p, sigevent);
	p->notice = sigevent->notice;
	return (int64_t)p->cb.aio_offset == offset ? 0 : -EOVERFLOW;
}

/* The state, once a start that another thread is in the middle of is through (it needs nothing of ours). */
static int settled_state(struct ioc_aio *p)
{
	int state;

	while ((state = __atomic_load_n(&p->state, __ATOMIC_ACQUIRE)) == IOC_STARTING)
		sched_yield();
	return state;
}

/* A control block is for one start only: whoever still waits for it may read it at any later time. */
static int claim(struct ioc_aio *p)
{
	int idle = IOC_IDLE;

	if (!__atomic_compare_exchange_n(&p->state, &idle, IOC_STARTING, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return 0;
	hold(p->notice);
	return 1;
}

/* Started with `op`, or refused: 0 or a negated errno. */
static int start(struct ioc_aio *p, int op)
{
	if (!may_use())
		return IOC_AIO_FORKED;
	if (!claim(p))
		return -EBUSY;
	errno = 0;
	return claimed(p, clib_give(p, op));
}

int ioc_aio_start(struct ioc_aio *p, int opcode)
{
	return start(p, opcode);
}

int ioc_aio_fsync(struct ioc_aio *p, int op)
{
	return start(p, op);
}

/* Whether `n` entries fit what is left of this thread's stack (64 bytes each is more than glibc takes). */
static int fits_stack(int n)
{
#if IOC_AIO_GLIBC
	pthread_attr_t attr;
	void *low = NULL;
	size_t size = 0;

	if (n <= 128)
		return 1;
	if (pthread_getattr_np(pthread_self(), &attr))
		return 0;
	pthread_attr_getstack(&attr, &low, &size);
	pthread_attr_destroy(&attr);
	return (uintptr_t)&attr - (uintptr_t)low > (uintptr_t)n * 64 + 65536;
#else
	(void)n;
	return 1;
#endif
}

#if IOC_AIO_GLIBC
static int start_list(struct ioc_aio **list, int n, struct ioc_sigevent *group)
{
	int i, error, result;

	if (group)
		hold(group->notice);
	errno = 0;
	result = lio_listio(LIO_NOWAIT, (struct aiocb *const *)list, n, group ? &group->ev : NULL) ? negated() : 0;
	for (i = 0; i < n; i++) {
		if (!result) {
			set_state(list[i], IOC_STARTED);
			continue;
		}
		/* Some run, some were refused. One that has no error and no result either was refused for want
		 * of memory, or moved no byte: to call it refused loses nothing. Its notice stays held, as
		 * nobody can say whether it will be told. */
		error = aio_error(&list[i]->cb);
		set_state(list[i], error || aio_return(&list[i]->cb) ? IOC_STARTED : -EAGAIN);
	}
	return result;
}
#else
#define start_list ioc_musl_list
#endif

/* Starts all: what lio_listio(LIO_NOWAIT) does. */
int ioc_aio_lio(struct ioc_aio **list, int n, struct ioc_sigevent *group)
{
	int i;

	if (!may_use())
		return IOC_AIO_FORKED;
	if (!fits_stack(n))
		return -E2BIG;
	for (i = 0; i < n; i++)
		if (!claim(list[i]))
			break;
	if (i < n) {
		while (i-- > 0) {
			drop(list[i]->notice);
			set_state(list[i], IOC_IDLE);
		}
		return -EBUSY;
	}
	return start_list(list, n, group);
}

static int error_of(struct ioc_aio *p)
{
	int state = __atomic_load_n(&p->state, __ATOMIC_ACQUIRE);

	if (state == IOC_STARTED)
		return clib_error(p);
	return state < 0 ? -state : state == IOC_STARTING ? EINPROGRESS : IOC_AIO_NEVER;
}

/* The operation's errno, EINPROGRESS while it runs, or IOC_AIO_NEVER. */
int ioc_aio_error(struct ioc_aio *p)
{
	return forked() ? IOC_AIO_FORKED : error_of(p);
}

/* The same for many; how many of them are in progress. */
int ioc_aio_errors(struct ioc_aio **list, int n, int *errors)
{
	int i, running = 0;

	for (i = 0; i < n; i++) {
		errors[i] = ioc_aio_error(list[i]);
		running += errors[i] == EINPROGRESS;
	}
	return running;
}

/* Only for what has ended without an error. */
int64_t ioc_aio_return(struct ioc_aio *p)
{
	return aio_return(&p->cb);
}

/* The index of one that is over; -EAGAIN when `ns` nanoseconds, at most a day, have passed (negative: no
 * limit); -EINTR when the caller had better look for signals and call again. */
int ioc_aio_suspend(struct ioc_aio **list, int n, int64_t ns)
{
	const int64_t day = 86400 * INT64_C(1000000000);
	int64_t limit = ns < 0 || ns > day ? day : ns;
	struct timespec ts = {.tv_sec = (time_t)(limit / 1000000000), .tv_nsec = (long)(limit % 1000000000)};
	int i, result;

	if (n < 1) /* glibc would come back at once, musl never */
		return -EINVAL;
	if (!may_use())
		return IOC_AIO_FORKED;
	if (!fits_stack(n))
		return -E2BIG;
	for (i = 0; i < n; i++)
		if (settled_state(list[i]) != IOC_STARTED)
			return i;
	do {
		errno = 0;
		result = aio_suspend((const struct aiocb *const *)list, n, &ts) ? negated() : 0;
		for (i = 0; i < n; i++)
			if (error_of(list[i]) != EINPROGRESS)
				return i;
	} while (result == -EAGAIN && ns < 0); /* a day has passed */
	if (!result) /* musl: it has ended, but its thread has not left */
		sched_yield();
	return result ? result : -EINTR; /* woken for nothing: as good as a signal */
}

/* `p` may be NULL: all of the descriptor number's. */
int ioc_aio_cancel(int fd, struct ioc_aio *p)
{
	int result;

	if (!may_use())
		return IOC_AIO_FORKED;
	if (p)
		settled_state(p);
	errno = 0;
	result = clib_cancel(fd, p);
	return result < 0 ? negated() : result;
}

/* Takes the notification off a request that may be in progress: at the end of the interpreter, when a
 * signal would find its handler gone and end the process. 0 where this is not the process that runs it. */
int ioc_aio_mute(struct ioc_aio *p)
{
	if (forked())
		return 0;
	clib_mute(p);
	return 1;
}

int ioc_aio_init(int threads, int num, int idle_time)
{
#ifdef HAVE_aio_init
	struct aioinit init = {.aio_threads = threads, .aio_num = num, .aio_idle_time = idle_time};

	if (forked())
		return IOC_AIO_FORKED;
	if (__atomic_load_n(&used_by, __ATOMIC_ACQUIRE))
		return -EBUSY;
	aio_init(&init);
	return 0;
#else
	(void)threads, (void)num, (void)idle_time;
	return -ENOSYS;
#endif
}

/* Whether two numbers name one open file: 1 or 0; a negated errno where it can't be found out (kcmp, the
 * way before Linux 6.10, is compiled out of some kernels, and forbidden in most containers). */
int ioc_same_file(int a, int b)
{
	int res = fcntl(a, F_DUPFD_QUERY, b);

	if (res >= 0)
		return res;
	if (errno != EINVAL)
		return -errno;
#ifdef SYS_kcmp
	res = (int)syscall(SYS_kcmp, getpid(), getpid(), 0 /* KCMP_FILE */, (unsigned long)a, (unsigned long)b);
	return res < 0 ? -errno : !res;
#else
	return -ENOSYS;
#endif
}

/* A duplicate, stored where a signal handler's exception can't lose it; 0 or a negated errno. */
int ioc_dup(int fd, int *to)
{
	*to = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return *to < 0 ? -errno : 0;
}

void ioc_dup_close(int *own)
{
	if (*own >= 0)
		close(*own);
	*own = -1;
}
