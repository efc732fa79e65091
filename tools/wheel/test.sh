#!/bin/sh
# tools/wheel/test.sh [--no-tests] [PYTEST ARGUMENT...]    try the installed package: its command, and the tests of this tree
#
# Run by cibuildwheel in its containers and by ./dev wheel in its roots, with the Python on the PATH. Where io_uring
# is forbidden the tests that need it are skipped, and say why; IOCANCEL_REQUIRE=uring makes that a failure.
set -eu
unset CDPATH
cd -- "$(dirname -- "$0")/../.."

tests=yes
if [ "${1-}" = --no-tests ]; then
    tests=no
    shift
fi
# What is in src/ here is not what is to be tried.
where=$(python -c 'import iocancel; print(iocancel.__file__)')
case $where in
    "$PWD"/*) echo "test.sh: $where is this tree's, not an installed package" >&2; exit 1 ;;
esac
printf '\n=== %s, %s\n' "$(python -VV | head -n 1)" "$where"
iocancel demo
iocancel doctor
[ "$tests" = no ] || exec python -m pytest -p no:cacheprovider --color=no "$@"
