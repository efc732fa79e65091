#define IOC_ROOM ...

struct ioc_ready { int64_t res; int64_t calls; char room[...]; ...; };
int64_t ioc_ready_read(struct ioc_ready *r, int fd, size_t n, int64_t off);
int64_t ioc_ready_recv(struct ioc_ready *r, int fd, size_t n, int flags);
int64_t ioc_ready_read_to(struct ioc_ready *r, int fd, void *buf, size_t n, int64_t off);
int64_t ioc_ready_recv_to(struct ioc_ready *r, int fd, void *buf, size_t n, int flags);
int64_t ioc_ready_write(struct ioc_ready *r, int fd, const void *buf, size_t n, int64_t off);
int64_t ioc_ready_send(struct ioc_ready *r, int fd, const void *buf, size_t n, int flags);
int64_t ioc_ready_accept(struct ioc_ready *r, int fd);
int64_t ioc_ready_poll(struct ioc_ready *r, int fd, int events);
int ioc_pidfd(int pid, int *to);
