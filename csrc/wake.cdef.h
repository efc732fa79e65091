struct ioc_wake { int fd; ...; };
struct ioc_wake *ioc_wake_new(void);
void ioc_wake_free(struct ioc_wake *wake);
void ioc_wake_set(struct ioc_wake *wake);
void ioc_wake_clear(struct ioc_wake *wake);
void ioc_wake_close(struct ioc_wake *wake);
