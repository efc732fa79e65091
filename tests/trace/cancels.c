/* A program that knows nothing of iocancel: cancels of each kind by liburing, and what came of them.
 *
 * For each it prints "mechanism user_data result [targets' user_data=result ...]". Without a target that ends
 * later: it waits for all endings before the next.
 */
#define _GNU_SOURCE
#include <liburing.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static struct io_uring ring;
static int ends[2];

static struct io_uring_sqe *entry(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe) {
		fprintf(stderr, "no entry\n");
		exit(1);
	}
	memset(sqe, 0, sizeof(*sqe));
	return sqe;
}

static void name(struct io_uring_sqe *sqe, unsigned long long user_data)
{
	sqe->user_data = user_data;
}

static void read_waits(unsigned long long user_data)
{
	static char room[8];
	struct io_uring_sqe *sqe = entry();

	io_uring_prep_read(sqe, ends[0], room, sizeof(room), 0);
	name(sqe, user_data);
	io_uring_submit(&ring);
}

static void poll_waits(unsigned long long user_data)
{
	struct io_uring_sqe *sqe = entry();

	io_uring_prep_poll_add(sqe, ends[0], POLLIN);
	name(sqe, user_data);
	io_uring_submit(&ring);
}

/* Waits for n completions and tells of them: the cancel's own first. */
static void told(const char *mechanism, unsigned long long user_data, int n)
{
	char targets[256] = "";
	int own = 0, res = 0;

	io_uring_submit(&ring);
	for (int i = 0; i < n; i++) {
		struct io_uring_cqe *cqe;

		if (io_uring_wait_cqe(&ring, &cqe) < 0)
			exit(1);
		if (cqe->user_data == user_data) {
			own = 1;
			res = cqe->res;
		} else {
			size_t used = strlen(targets);

			snprintf(targets + used, sizeof(targets) - used, " %llu=%d",
				 (unsigned long long)cqe->user_data, cqe->res);
		}
		io_uring_cqe_seen(&ring, cqe);
	}
	if (!own && user_data)
		exit(2);
	printf("%s %llu %d%s\n", mechanism, user_data, res, targets);
}

/* Cancels of all and synchronous ones are there from Linux 6.0 on. */
static int since_6(void)
{
	struct utsname name;

	return !uname(&name) && atoi(name.release) >= 6;
}

int main(void)
{
	struct io_uring_sqe *sqe;
	struct __kernel_timespec long_time = { .tv_sec = 1000 }, short_time = { .tv_nsec = 1000000 };

	if (io_uring_queue_init(64, &ring, 0) < 0 || pipe(ends) < 0)
		return 3;

	read_waits(1); /* by user_data */
	sqe = entry();
	io_uring_prep_cancel64(sqe, 1, 0);
	name(sqe, 2);
	told("async_cancel", 2, 2);

	sqe = entry(); /* which is not there */
	io_uring_prep_cancel64(sqe, 999, 0);
	name(sqe, 3);
	told("async_cancel", 3, 1);

	sqe = entry(); /* wrong */
	io_uring_prep_cancel64(sqe, 999, 0);
	sqe->cancel_flags = 1u << 30;
	name(sqe, 4);
	told("async_cancel", 4, 1);

	poll_waits(5);
	sqe = entry();
	io_uring_prep_poll_remove(sqe, 5);
	name(sqe, 6);
	told("poll_remove", 6, 2);

	sqe = entry();
	io_uring_prep_timeout(sqe, &long_time, 0, 0);
	name(sqe, 7);
	io_uring_submit(&ring);
	sqe = entry();
	io_uring_prep_timeout_remove(sqe, 7, 0);
	name(sqe, 8);
	told("timeout_remove", 8, 2);

	sqe = entry();
	io_uring_prep_poll_add(sqe, ends[0], POLLIN);
	name(sqe, 9);
	sqe->flags |= IOSQE_IO_LINK;
	sqe = entry();
	io_uring_prep_link_timeout(sqe, &short_time, 0);
	name(sqe, 10);
	told("link_timeout", 10, 2);

	if (!since_6())
		goto end;
#ifdef IORING_ASYNC_CANCEL_ALL
	poll_waits(11);
	poll_waits(12);
	sqe = entry();
	io_uring_prep_cancel_fd(sqe, ends[0], IORING_ASYNC_CANCEL_ALL);
	name(sqe, 13);
	told("async_cancel", 13, 3);

	sqe = entry(); /* all of none */
	io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
	name(sqe, 14);
	told("async_cancel", 14, 1);
#endif
#ifdef IORING_ASYNC_CANCEL_FD_FIXED
	{
		struct io_uring_sync_cancel_reg reg = { .addr = 15, .timeout = { -1, -1 } };
		struct io_uring_cqe *cqe;
		int res;

		poll_waits(15);
		res = io_uring_register_sync_cancel(&ring, &reg);
		if (io_uring_wait_cqe(&ring, &cqe) < 0)
			return 1;
		printf("sync_cancel 0 %d %llu=%d\n", res, (unsigned long long)cqe->user_data, cqe->res);
		io_uring_cqe_seen(&ring, cqe);
	}
#endif
end:
	io_uring_queue_exit(&ring);
	return 0;
}
