/* What iocancel.libaio needs of libaio and of the kernel's AIO calls: no policy, only wrappers and
 * batch helpers. Results are as libaio's: a value, or a negated errno. */

/* This file has the system header's name. The next one on the path is meant, and this line stands
 * outside the guard because a file found beside its includer has the -I path, and so itself, next. */
#include_next <libaio.h>

#ifndef IOC_LIBAIO_H
#define IOC_LIBAIO_H
#include <linux/fs.h>
#include <poll.h>
#include <stdint.h>

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x00000020 /* Linux 6.9 */
#endif
#ifndef RWF_ATOMIC
#define RWF_ATOMIC 0x00000040 /* Linux 6.11 */
#endif
#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x00000080 /* Linux 6.14 */
#endif
#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x00000100 /* Linux 6.18 */
#endif

#if __has_include(<linux/ioprio.h>)
#include <linux/ioprio.h>
#else /* headers older than Linux 5.15's */
#define IOPRIO_CLASS_SHIFT 13
enum { IOPRIO_CLASS_NONE, IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE };
#endif

/* The answer to a call for a context that another process made: no errno is so big. */
#define IOC_LAIO_FORKED (-4097)

/* One request, as Python packs it. resfd and ioprio are -1 where there is none. */
struct ioc_laio_entry {
	uint64_t buf; /* the buffer's or the iovecs' address; a poll's events */
	uint64_t nbytes; /* bytes, or the number of iovecs */
	int64_t offset;
	int fd;
	int rw_flags;
	int resfd;
	int ioprio;
	int opcode;
	int unused;
};

/* The kernel's io_event, whose numbers are signed where libaio says unsigned. */
struct ioc_laio_event {
	uint64_t data; /* the request's serial number */
	uint64_t obj; /* its iocb's address */
	int64_t res;
	int64_t res2;
};

struct ioc_laio_events {
	long count; /* how many there are, set by each call */
	struct ioc_laio_event event[];
};

/* What became of a submission, so that whoever was interrupted before it could store the result can
 * still tell. */
struct ioc_laio_batch {
	int called; /* io_submit was entered, and will not be entered again */
	int returned; /* and left */
	long done; /* the first `done` requests are the kernel's */
};

struct ioc_laio_context {
	io_context_t id; /* NULL: never set up, or destroyed */
	uint64_t process; /* ioc_process() of its maker */
	int woken; /* the wake-up poll has ended and is not armed */
	int wake_fd;
	struct iocb wake; /* the wake-up poll; its data is 0, which no request has */
};

/* Makes a context for nr requests. One of them is for ioc_laio_wake's poll of wake_fd, an eventfd. */
int ioc_laio_setup(struct ioc_laio_context *c, int nr, int wake_fd);
/* Whether there is a context that this process may use. */
int ioc_laio_open(const struct ioc_laio_context *c);
/* Arms the wake-up poll, unless it is armed. */
int ioc_laio_wake(struct ioc_laio_context *c);
/* Destroys the context, once, whoever calls how often. Blocks until what is in flight has ended. */
int ioc_laio_destroy(struct ioc_laio_context *c);
/* Fills iocbs from entries, gives them the serial numbers from `serial` on, and submits them. */
int ioc_laio_submit(struct ioc_laio_context *c, struct iocb *iocbs, const struct ioc_laio_entry *entries,
		   long n, uint64_t serial, struct ioc_laio_batch *batch);
/* io_cancel; out has room for one event, and takes it where the kernel hands it over (answer 0). */
int ioc_laio_cancel(struct ioc_laio_context *c, struct iocb *iocb, struct ioc_laio_events *out);
/* io_cancel of each; out has room for n events. Returns how many the kernel accepted. */
int ioc_laio_cancel_many(struct ioc_laio_context *c, struct iocb **iocbs, long n, struct ioc_laio_events *out);
/* io_cancel of each; answers[i] is what it said of iocbs[i]. */
void ioc_laio_cancel_each(struct ioc_laio_context *c, struct iocb **iocbs, long n, int *answers);
/* Waits for min events, takes at most max of them. deadline: CLOCK_MONOTONIC nanoseconds, -1 for
 * never, 0 for no waiting. Fewer than min come back at the deadline and when the wake-up poll ended;
 * -EINTR and other errors may come beside events: out->count says. */
int ioc_laio_getevents(struct ioc_laio_context *c, long min, long max, int64_t deadline,
		      struct ioc_laio_events *out);

#endif
