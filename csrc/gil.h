/* Free-threaded CPython: the module needs the GIL, and says so.
 *
 * Who leads an engine, and the tokens that operations are known by, are settled by a look and a store with no
 * call between them: the GIL lets no other thread in there. Without it two threads enter one ring, and two
 * operations get the same token. But cffi declares of every module it makes that it does without. So this one
 * declares the contrary: the interpreter then turns the GIL on, and says so in a RuntimeWarning. Where it was
 * told to leave it off (PYTHON_GIL=0, -X gil=0) the import fails.
 *
 * It comes before what cffi writes, which calls _cffi_init once, in PyInit__native. */
#ifdef Py_GIL_DISABLED
#ifdef Py_LIMITED_API
#error "iocancel cannot declare that it needs the GIL in the stable ABI of free-threaded CPython: use 3.14t, or one with a GIL"
#endif

static PyObject *ioc_cffi_init(const char *name, Py_ssize_t version, const struct _cffi_type_context_s *context)
{
	/* While a module is made it is on, unless it was to be left off. */
	PyObject *asked = PySys_GetObject("_is_gil_enabled"), *on = asked ? PyObject_CallNoArgs(asked) : NULL;
	PyObject *module;

	if (!on && PyErr_Occurred())
		return NULL;
	Py_XDECREF(on);
	if (on != Py_True) {
		PyErr_SetString(PyExc_ImportError,
				"iocancel needs the GIL, and this interpreter was told to leave it off:"
				" run it without PYTHON_GIL=0 and -X gil=0");
		return NULL;
	}
	module = _cffi_init(name, version, context);
	if (module && PyUnstable_Module_SetGIL(module, Py_MOD_GIL_USED) < 0)
		Py_CLEAR(module);
	return module;
}
#define _cffi_init ioc_cffi_init
#endif
