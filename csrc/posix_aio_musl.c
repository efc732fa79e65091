/* POSIX AIO where the C library is not glibc: each operation tells a function of ours when its thread
 * leaves. Facts of musl's (1.2.3 to 1.2.6) that this rests on:
 *
 * - The thread of an operation stores the error, then takes the operation off its descriptor's queue, then
 *   notifies. aio_cancel comes back before the first: aio_error may be EINPROGRESS behind CANCELED.
 * - In the queue, a write to a pipe (to what has no position, or has O_APPEND) and every sync wait for the
 *   writes before them, in pthread_cond_wait. aio_cancel holds the queue's lock while it waits for whom it
 *   cancels, who needs that lock to come out of there: both hang for ever, with all signals blocked. So
 *   does close(), which calls it.
 * - aio_cancel waits for whom it cancels also where nothing can interrupt him: a disk's read, a sync.
 * - The thread of lio_listio's notification looks at control blocks that have ended.
 *
 * So an operation is in progress until its thread was in `leave`: it is in no queue then, was told of, and
 * its memory is nobody's. What can't be interrupted, or may wait in a queue, is not asked to cancel. And
 * the end of a list is counted here. */
#include "posix_aio_inside.h"
#if !IOC_AIO_GLIBC
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The members of a list that is to be told of once. */
struct ioc_group {
	struct ioc_sigevent told;
	int many; /* who has not left */
};

/* Guards all that is static here, and of each operation `next`, `previous`, `firm`, `left`, its group's count.
 * Whoever was told of an end finds it: he waits for this. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ioc_aio *first; /* all that are in progress */

static void tell(const struct ioc_sigevent *told)
{
	const struct sigevent *ev = &told->ev;

	if (ev->sigev_notify == SIGEV_THREAD) {
		ev->sigev_notify_function(ev->sigev_value);
	} else if (ev->sigev_notify == SIGEV_SIGNAL) {
		siginfo_t info;

		memset(&info, 0, sizeof(info));
		info.si_signo = ev->sigev_signo;
		info.si_code = SI_ASYNCIO;
		info.si_pid = getpid();
		info.si_uid = getuid();
		info.si_value = ev->sigev_value;
		syscall(SYS_rt_sigqueueinfo, info.si_pid, info.si_signo, &info);
	}
}

/* One less in the group; the last one tells, and frees it. With the lock. */
static void less(struct ioc_group *group)
{
	if (group && --group->many == 0) {
		tell(&group->told);
		free(group);
	}
}

static void enter(struct ioc_aio *p, int op)
{
	struct stat st;
	struct ioc_aio *other;

	p->writes = op == LIO_WRITE;
	p->firm = op == O_SYNC || op == O_DSYNC;
	if (!fstat(p->cb.aio_fildes, &st))
		p->firm |= S_ISREG(st.st_mode) || S_ISBLK(st.st_mode);
	pthread_mutex_lock(&lock);
	for (other = first; other && p->writes; other = other->next) {
		if (!other->writes || other->cb.aio_fildes != p->cb.aio_fildes)
			continue;
		p->firm = 1;
		if (__atomic_load_n(&other->state, __ATOMIC_ACQUIRE) == IOC_STARTING)
			other->firm = 1; /* either may come first */
	}
	p->previous = NULL;
	p->next = first;
	if (first)
		first->previous = p;
	first = p;
	pthread_mutex_unlock(&lock);
}

/* Not in progress any more. With the lock; when that is given up, the operation may be freed. */
static void out(struct ioc_aio *p)
{
	if (p->previous)
		p->previous->next = p->next;
	else
		first = p->next;
	if (p->next)
		p->next->previous = p->previous;
	p->left = 1;
}

/* What SIGEV_THREAD runs, in the operation's own thread, with all signals blocked: the last that it does. */
static void leave(union sigval value)
{
	struct ioc_aio *p = value.sival_ptr;

	pthread_mutex_lock(&lock);
	tell(&p->told);
	less(p->group);
	out(p);
	pthread_mutex_unlock(&lock);
}

void ioc_musl_tell(struct ioc_aio *p, const struct ioc_sigevent *sigevent)
{
	p->told = *sigevent;
	p->cb.aio_sigevent.sigev_notify = SIGEV_THREAD;
	p->cb.aio_sigevent.sigev_notify_function = leave;
	p->cb.aio_sigevent.sigev_value.sival_ptr = p;
}

int ioc_musl_give(struct ioc_aio *p, int op)
{
	int result, error;

	enter(p, op);
	result = give(p, op);
	if (!result)
		return 0;
	error = errno;
	pthread_mutex_lock(&lock);
	out(p);
	pthread_mutex_unlock(&lock);
	errno = error;
	return result;
}

int ioc_musl_list(struct ioc_aio **list, int n, const struct ioc_sigevent *sigevent)
{
	struct ioc_group *group = NULL;
	int i, result = 0;

	if (sigevent && sigevent->ev.sigev_notify != SIGEV_NONE) {
		group = malloc(sizeof(*group));
		if (group) {
			group->told = *sigevent;
			group->many = n + 1; /* and this one, until all were started */
			hold(sigevent->notice);
		} else {
			result = -EAGAIN;
		}
	}
	for (i = 0; i < n; i++) {
		struct ioc_aio *p = list[i];
		int op = p->cb.aio_lio_opcode;

		p->group = group;
		errno = result ? -result : 0;
		result = claimed(p, result ? -1 : ioc_musl_give(p, op));
		if (result && group) {
			pthread_mutex_lock(&lock);
			group->many--; /* it never was one */
			pthread_mutex_unlock(&lock);
		}
	}
	if (!group)
		return result;
	pthread_mutex_lock(&lock);
	if (result) { /* the caller knows that it was not all of them */
		group->told.ev.sigev_notify = SIGEV_NONE;
		drop(group->told.notice);
	}
	less(group);
	pthread_mutex_unlock(&lock);
	return result;
}

/* Of what was started: its errno, EINPROGRESS until its thread has left. */
int ioc_musl_error(struct ioc_aio *p)
{
	int left, error = aio_error(&p->cb);

	if (error == EINPROGRESS)
		return error;
	pthread_mutex_lock(&lock);
	left = p->left;
	pthread_mutex_unlock(&lock);
	return left ? error : EINPROGRESS;
}

/* As aio_cancel. When it says that `p` was cancelled, or had ended, the thread of `p` has left. */
int ioc_musl_cancel(int fd, struct ioc_aio *p)
{
	int result, firm = 0, started = p && __atomic_load_n(&p->state, __ATOMIC_ACQUIRE) == IOC_STARTED;

	if (started && p->cb.aio_fildes == fd) {
		pthread_mutex_lock(&lock);
		firm = p->firm;
		pthread_mutex_unlock(&lock);
	}
	if (firm)
		return ioc_musl_error(p) == EINPROGRESS ? AIO_NOTCANCELED : AIO_ALLDONE;
	result = aio_cancel(fd, p ? &p->cb : NULL);
	while (started && result != -1 && ioc_musl_error(p) == EINPROGRESS)
		sched_yield(); /* it needs nothing of ours */
	return result;
}

void ioc_musl_mute(struct ioc_aio *p)
{
	pthread_mutex_lock(&lock);
	p->told.ev.sigev_notify = SIGEV_NONE;
	pthread_mutex_unlock(&lock);
}

#else
/* ISO C wants something here. */
typedef int ioc_musl_none;
#endif
