/* POSIX AIO of the C library, for cffi: control blocks that are started once each, notices, batches.
 *
 * Every function here answers with a negated errno (errno itself is per thread, and cffi's copy of it
 * is another thread's business), or with one of the IOC_AIO_ values. None has a policy. */
#ifndef IOC_POSIX_AIO_H
#define IOC_POSIX_AIO_H
#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

/* No errno has these values. */
#define IOC_AIO_FORKED (-100001) /* an ancestor used POSIX AIO before this process was forked off it */
#define IOC_AIO_NEVER (-100002)  /* this control block was never given to the C library */

#ifdef __GLIBC__
#define IOC_AIO_GLIBC 1
#else
#define IOC_AIO_GLIBC 0
#endif

/* What SIGEV_THREAD's function is given: an eventfd to write, and how many notifications are still to
 * come. Memory of malloc's: the C library's threads may run later than anything that Python knows of. */
struct ioc_notice {
	int fd;      /* owned */
	int pending; /* atomic */
	uint64_t process;
};

struct ioc_sigevent {
	struct sigevent ev;
	struct ioc_notice *notice; /* for SIGEV_THREAD, else NULL */
};

/* One request. The control block comes first: a pointer to this is one to that. */
struct ioc_aio {
	struct aiocb cb;
	struct ioc_notice *notice;
	int state; /* atomic: idle, starting, started, or the negated errno of a refusal */
#if !IOC_AIO_GLIBC /* see posix_aio_musl.c */
	struct ioc_sigevent told;
	struct ioc_group *group;
	struct ioc_aio *next, *previous;
	int writes, firm, left;
#endif
};

struct ioc_notice *ioc_notice_new(int fd);
int ioc_notice_free(struct ioc_notice *notice);

void ioc_sigevent_none(struct ioc_sigevent *p);
void ioc_sigevent_signal(struct ioc_sigevent *p, int signo, int value);
void ioc_sigevent_thread(struct ioc_sigevent *p, struct ioc_notice *notice);

int ioc_aio_fill(struct ioc_aio *p, int fd, void *buf, size_t nbytes, int64_t offset, int reqprio, int opcode,
		 const struct ioc_sigevent *sigevent);
int ioc_aio_start(struct ioc_aio *p, int opcode);
int ioc_aio_fsync(struct ioc_aio *p, int op);
int ioc_aio_lio(struct ioc_aio **list, int n, struct ioc_sigevent *group);
int ioc_aio_error(struct ioc_aio *p);
int ioc_aio_errors(struct ioc_aio **list, int n, int *errors);
int64_t ioc_aio_return(struct ioc_aio *p);
int ioc_aio_suspend(struct ioc_aio **list, int n, int64_t ns);
int ioc_aio_cancel(int fd, struct ioc_aio *p);
int ioc_aio_mute(struct ioc_aio *p);
int ioc_aio_init(int threads, int num, int idle_time);

int ioc_same_file(int a, int b);
int ioc_dup(int fd, int *to);
void ioc_dup_close(int *own);

#endif
