/* An eventfd that any thread or signal handler may write to, and that is closed by nobody while one does:
 * a number that was closed is soon another file's. Takes no lock. */
#ifndef IOC_WAKE_H
#define IOC_WAKE_H
#include <stdint.h>

struct ioc_wake {
	int fd;      /* -1 when closed */
	int users;   /* calls that are inside */
	int closed;
	uint64_t process;
};

struct ioc_wake *ioc_wake_new(void); /* NULL: errno says why */
void ioc_wake_free(struct ioc_wake *wake);
void ioc_wake_set(struct ioc_wake *wake);
void ioc_wake_clear(struct ioc_wake *wake);
void ioc_wake_close(struct ioc_wake *wake);

#endif
