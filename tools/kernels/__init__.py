"""`./dev kernels`: run the tests under other kernels, each in a virtual machine of its own."""
