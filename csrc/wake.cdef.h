struct ioc_wake { int fd; int put; int signals; unsigned char numbers[64]; ...; };
struct ioc_wake *ioc_wake_new(int pipe);
void ioc_wake_free(struct ioc_wake *wake);
void ioc_wake_set(struct ioc_wake *wake);
void ioc_wake_clear(struct ioc_wake *wake);
void ioc_wake_close(struct ioc_wake *wake);
