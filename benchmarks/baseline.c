/*
 * The C side of `python -m benchmarks`, which compiles it: what the same system calls cost without Python.
 *
 * It reads lines of "WORK REPETITIONS" and answers each with a line: the nanoseconds of each repetition.
 * Every completion is read: how many there were and the sum of their results must come out as expected.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <liburing.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ENTRIES 2048
#define MANY 1024 /* in one batch */
#define TIMES 100 /* of the small cases, in one repetition */

static struct io_uring ring;
static aio_context_t context;
static int blocked; /* the read end of a pipe that nobody writes to */
static long seen, sum;

static void fail(const char *what, int error)
{
	fprintf(stderr, "baseline: %s: %s\n", what, strerror(error));
	exit(1);
}

static struct io_uring_sqe *entry(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe)
		fail("io_uring_get_sqe", EAGAIN);
	return sqe;
}

static void submit_and_wait(unsigned n)
{
	int res = io_uring_submit_and_wait(&ring, n);

	if (res < 0)
		fail("io_uring_submit_and_wait", -res);
}

static void reap(void)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&ring, head, cqe) {
		sum += cqe->res;
		n++;
	}
	io_uring_cq_advance(&ring, n);
	seen += n;
}

static void nothing(void)
{
}

static void poll_many(void)
{
	for (int i = 0; i < MANY; i++) {
		struct io_uring_sqe *sqe = entry();

		io_uring_prep_poll_add(sqe, blocked, POLLIN);
		sqe->user_data = i;
	}
	submit_and_wait(0);
}

static void cancel_many(void) /* newest first; what succeeds says nothing of itself */
{
	for (int i = MANY - 1; i >= 0; i--) {
		struct io_uring_sqe *sqe = entry();

		io_uring_prep_cancel64(sqe, i, 0);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		sqe->user_data = 5000;
	}
	submit_and_wait(MANY);
	reap();
}

static int pending; /* what a work's name ends with */

static void poll_pending(void)
{
	for (int i = 0; i < pending; i++) {
		struct io_uring_sqe *sqe = entry();

		io_uring_prep_poll_add(sqe, blocked, POLLIN);
		sqe->user_data = i;
		if (i % MANY == MANY - 1 || i == pending - 1)
			submit_and_wait(0);
	}
}

static void cancel_newest_first(void) /* each batch reaped before the next */
{
	for (int left = pending; left > 0;) {
		int batch = left < MANY ? left : MANY;

		for (int i = 1; i <= batch; i++) {
			struct io_uring_sqe *sqe = entry();

			io_uring_prep_cancel64(sqe, left - i, 0);
			sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
			sqe->user_data = 1 << 30;
		}
		submit_and_wait(batch);
		reap();
		left -= batch;
	}
}

static void cancel_any_all(void)
{
	struct io_uring_sqe *sqe = entry();

	io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
	sqe->user_data = 1 << 30;
	submit_and_wait(1);
	reap();
	while (seen < pending + 1) { /* more than the queue holds: the kernel kept them */
		int res = io_uring_get_events(&ring);

		if (res < 0)
			fail("io_uring_get_events", -res);
		reap();
	}
}

static void cancel_one(void)
{
	for (int i = 0; i < TIMES; i++) {
		struct io_uring_sqe *sqe = entry();

		io_uring_prep_poll_add(sqe, blocked, POLLIN);
		sqe->user_data = 1;
		submit_and_wait(0);
		sqe = entry();
		io_uring_prep_cancel64(sqe, 1, 0);
		sqe->user_data = 2;
		submit_and_wait(2);
		reap();
	}
}

static void nop_many(void)
{
	for (int i = 0; i < MANY; i++) {
		struct io_uring_sqe *sqe = entry();

		io_uring_prep_nop(sqe);
		sqe->user_data = i;
	}
	submit_and_wait(MANY);
	reap();
}

static void libaio_one(void) /* by the system calls themselves: libaio adds nothing to them */
{
	for (int i = 0; i < TIMES; i++) {
		struct iocb iocb = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = blocked, .aio_buf = POLLIN};
		struct iocb *list = &iocb;
		struct io_event event;

		if (syscall(SYS_io_submit, context, 1L, &list) != 1)
			fail("io_submit", errno);
		if (syscall(SYS_io_cancel, context, &iocb, &event) == 0 || errno != EINPROGRESS)
			fail("io_cancel", errno);
		if (syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL) != 1)
			fail("io_getevents", errno);
		sum += event.res;
		seen++;
	}
}

static const struct work {
	const char *name;
	void (*prepare)(void); /* not timed */
	void (*run)(void);
	long seen, sum; /* what must come out */
	long seen_each, sum_each; /* and for each of those that were pending */
} works[] = {
	{"cancel", poll_many, cancel_many, MANY, -(long)ECANCELED * MANY, 0, 0},
	{"one", nothing, cancel_one, 2 * TIMES, -(long)ECANCELED * TIMES, 0, 0},
	{"nop", nothing, nop_many, MANY, 0, 0, 0},
	{"libaio", nothing, libaio_one, TIMES, 0, 0, 0},
	{"newest-first-", poll_pending, cancel_newest_first, 0, 0, 1, -ECANCELED},
	{"any-all-", poll_pending, cancel_any_all, 1, 0, 1, 1 - ECANCELED}, /* its own result counts them */
};

/* The work of a name; where its own ends with "-", the name goes on with how many are pending. */
static const struct work *find(const char *name)
{
	for (size_t i = 0; i < sizeof(works) / sizeof(*works); i++) {
		const char *own = works[i].name;
		size_t length = strlen(own);

		pending = 0;
		if (own[length - 1] != '-' && !strcmp(own, name))
			return &works[i];
		if (own[length - 1] == '-' && !strncmp(own, name, length) && (pending = atoi(name + length)) > 0)
			return &works[i];
	}
	fail(name, ENOENT);
	return NULL;
}

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int main(void)
{
	char name[32];
	int repetitions, ends[2], res;

	if (pipe(ends) < 0)
		fail("pipe", errno);
	blocked = ends[0];
	res = io_uring_queue_init(ENTRIES, &ring, 0);
	if (res < 0)
		fail("io_uring_queue_init", -res);
	while (scanf("%31s %d", name, &repetitions) == 2) {
		const struct work *work = find(name);

		if (work->run == libaio_one && !context && syscall(SYS_io_setup, 128L, &context) < 0)
			fail("io_setup", errno);
		for (int i = 0; i < repetitions; i++) {
			int64_t start;

			seen = sum = 0;
			work->prepare();
			start = now();
			work->run();
			printf("%lld ", (long long)(now() - start));
			if (seen != work->seen + work->seen_each * pending ||
			    sum != work->sum + work->sum_each * pending) {
				fprintf(stderr, "baseline: %s: %ld completions with %ld in sum\n", name, seen, sum);
				return 1;
			}
		}
		printf("\n");
		fflush(stdout);
	}
	return 0;
}
