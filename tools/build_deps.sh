#!/bin/sh
# tools/build_deps.sh [PREFIX]    build what a wheel brings along, into PREFIX (/usr/local)
#
# Run by cibuildwheel in its containers, and by ./dev wheel. Releases are downloaded and held against the sums
# below, which hold for local files, too:
#
#   LIBURING_TARBALL, LIBAIO_TARBALL   take these files, and download nothing
#   DEBIAN_MIRROR                      where upstream's sites can't be reached: a Debian archive, whose source
#                                      packages of both are the same files
#   HOST                               cross compile by HOST-gcc and HOST-ar, unless CC and AR say otherwise
#   CC, AR, CFLAGS, LDFLAGS            as usual
#   LICENCES                           put the two licences there, as LICENSE.* files; else into PREFIX/share
#
# liburing comes as an archive of hidden, position independent code: the extension has its own copy, which
# clashes with no other in the process. libaio comes as a shared library, since its licence, the LGPL, has
# users put a build of their own in its place; auditwheel takes it into the wheel.
set -eu
unset CDPATH

LIBURING=2.15
# Signed by liburing's maintainer (liburing-2.15.tar.gz.asc).
LIBURING_SHA256=efd299ff27cde40a45efc7dbb97ebe40a0c461921cb462f1d62611642bb4ee86
LIBURING_URLS="${DEBIAN_MIRROR:+$DEBIAN_MIRROR/pool/main/libu/liburing/liburing_$LIBURING.orig.tar.gz}
https://brick.kernel.dk/snaps/liburing-$LIBURING.tar.gz"

LIBAIO=0.3.113
LIBAIO_SHA256=2c44d1c5fd0d43752287c9ae1eb9c023f04ef848ea8d4aafa46e9aedb678200b
LIBAIO_URLS="${DEBIAN_MIRROR:+$DEBIAN_MIRROR/pool/main/liba/libaio/libaio_$LIBAIO.orig.tar.gz}
https://releases.pagure.org/libaio/libaio-$LIBAIO.tar.gz"

say() { printf 'build_deps: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

is_right() { # FILE SHA256
    printf '%s  %s\n' "$2" "$1" | sha256sum -c - >/dev/null 2>&1
}

download() { # URL FILE
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL --retry 2 --connect-timeout 20 --max-time 300 -o "$2" "$1"
    elif command -v wget >/dev/null 2>&1; then
        wget -q -T 60 -O "$2" "$1"
    else
        die 'nothing here can download: install curl or wget, or name local files (LIBURING_TARBALL, LIBAIO_TARBALL)'
    fi
}

# Unpack NAME into the scratch directory: the local file, or the first download that has the sum.
unpack() { # NAME LOCAL SHA256 URLS
    if [ -n "$2" ]; then
        [ -r "$2" ] || die "$1: $2 cannot be read"
        is_right "$2" "$3" || die "$1: $2 is not the release: its sha256 sum is not $3"
        file=$2
    else
        file=
        for url in $4; do
            download "$url" "$scratch/$1.tar.gz" || { say "$1: no $url; trying the next address"; continue; }
            if is_right "$scratch/$1.tar.gz" "$3"; then
                file=$scratch/$1.tar.gz
                break
            fi
            say "$1: $url is not the release: its sha256 sum is not $3; trying the next address"
        done
        [ -n "$file" ] || die "$1 cannot be had from any of: $(echo "$4" | tr '\n' ' '); name a local file instead"
    fi
    tar -xzf "$file" -C "$scratch"
    [ -d "$scratch/$1" ] || die "$1: the archive has no directory of that name"
}

quietly() { # COMMAND...: its output is for those who must find out why it failed
    "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; die "failed: $*"; }
}

keep_licence() { # LIBRARY FILE...
    library=$1
    shift
    for text in "$@"; do
        if [ -n "${LICENCES-}" ]; then
            install -D -m 644 "$text" "$LICENCES/LICENSE.$library.$text"
        else
            install -D -m 644 "$text" "$prefix/share/licenses/$library/$text"
        fi
    done
}

prefix=${1:-/usr/local}
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
export CC="${CC:-${HOST:+$HOST-gcc}}" AR="${AR:-${HOST:+$HOST-ar}}"
[ -n "$CC" ] || CC="cc"
[ -n "$AR" ] || AR="ar"
export RANLIB="$AR s"
for tool in "${CC%% *}" "${AR%% *}" make tar sha256sum; do
    command -v "$tool" >/dev/null 2>&1 || die "missing: $tool"
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

unpack "liburing-$LIBURING" "${LIBURING_TARBALL-}" "$LIBURING_SHA256" "$LIBURING_URLS"
unpack "libaio-$LIBAIO" "${LIBAIO_TARBALL-}" "$LIBAIO_SHA256" "$LIBAIO_URLS"
flags=${CFLAGS--O2 -fstack-protector-strong}

cd "$scratch/liburing-$LIBURING"
# With the C library's system calls and memory, as distributions build it.
CFLAGS=$flags quietly ./configure --prefix="$prefix" --includedir="$prefix/include" --libdir="$prefix/lib" \
    --libdevdir="$prefix/lib" --use-libc --cc="$CC"
CFLAGS="$flags -fPIC -fvisibility=hidden" quietly make -C src ENABLE_SHARED=0 install
rm "$prefix/lib/liburing-ffi.a"
# All of it may be used under the MIT licence, which is in this file, and is so here.
keep_licence liburing LICENSE

cd "$scratch/libaio-$LIBAIO"
CFLAGS=$flags quietly make prefix="$prefix" install
rm "$prefix/lib/libaio.a"
keep_licence libaio COPYING

say "liburing $LIBURING and libaio $LIBAIO are in $prefix"
