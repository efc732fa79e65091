#!/bin/sh
# tools/wheel/repair.sh WHEEL DIRECTORY    make a wheel that can be published: run by cibuildwheel and by ./dev wheel
#
# auditwheel takes libaio from PREFIX (/usr/local) into it and names the systems that it is for; then its content,
# its size and its use of Python's stable ABI are checked. Ends with 0 where all is as it must be.
set -eu
unset CDPATH
here=$(cd -- "$(dirname -- "$0")" && pwd)
wheel=$1 out=$2

# In cibuildwheel's containers there is pipx, and no abi3audit.
abi3audit() {
    if command -v abi3audit >/dev/null 2>&1; then
        command abi3audit "$@"
    else
        pipx run --spec abi3audit==0.0.26 abi3audit "$@"
    fi
}

LD_LIBRARY_PATH=${PREFIX:-/usr/local}/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    auditwheel repair --wheel-dir "$out" "$wheel"
for repaired in "$out"/*.whl; do
    case $repaired in
        *-abi3-*) abi3audit --strict --report "$repaired" ;;
    esac
    "${PYTHON:-python3}" "$here/content.py" "$repaired"
done
