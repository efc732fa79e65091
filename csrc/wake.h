/* An eventfd, or a pipe, that any thread or signal handler may write to, and that is closed by nobody while
 * one does: a number that was closed is soon another file's. Takes no lock.
 *
 * A pipe takes single bytes, which is how Python tells of signals (signal.set_wakeup_fd; an eventfd takes 8
 * at a time): a signal that comes just before its thread waits is seen there. */
#ifndef IOC_WAKE_H
#define IOC_WAKE_H
#include <stdint.h>

struct ioc_wake {
	int fd;      /* what to poll; -1 when closed */
	int put;     /* what is written to: of a pipe its other end */
	int users;   /* calls that are inside */
	int closed;
	uint64_t process;
	int signals; /* how many bytes of `numbers` clear has found: signals, as Python's handler writes them */
	unsigned char numbers[64];
};

struct ioc_wake *ioc_wake_new(int pipe); /* NULL: errno says why */
void ioc_wake_free(struct ioc_wake *wake);
void ioc_wake_set(struct ioc_wake *wake);
void ioc_wake_clear(struct ioc_wake *wake);
void ioc_wake_close(struct ioc_wake *wake);

#endif
