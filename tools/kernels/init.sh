#!/bin/busybox sh
# A guest's /init: the host's root under an overlay in memory, a real disk for O_DIRECT, then the command.
# /load and /command come with it, from initramfs.py and __main__.py.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
console=/dev/console
stop() { echo "guest: $*" >"$console"; poweroff -f; }
while read -r name parameters; do
    # shellcheck disable=SC2086
    insmod "/modules/$name.ko" $parameters || echo "guest: no $name" >"$console"
done </load

mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /root || stop "no root"
mount -t tmpfs -o size=75% memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/root,upperdir=/memory/upper,workdir=/memory/work overlay /new || stop "no overlay"
for m in proc sys dev; do mount --move /$m /new/$m; done
console=/new/dev/console
cd /new || stop "no new root"
mkdir -p dev/pts dev/shm mnt/scratch
mount -t devpts -o mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs shm dev/shm
mount -t tmpfs run run
mount -t configfs config sys/kernel/config 2>/dev/null
mount -t debugfs debug sys/kernel/debug 2>/dev/null
mount -t tracefs tracing sys/kernel/tracing 2>/dev/null
ln -sf /proc/self/fd dev/fd
for i in 0:stdin 1:stdout 2:stderr; do ln -sf "/proc/self/fd/${i%%:*}" "dev/${i#*:}"; done
mount -t ext4 dev/vda mnt/scratch || stop "no disk"
chmod 1777 mnt/scratch
ip link set lo up
echo 0 >proc/sys/kernel/printk_ratelimit
cp /command run/command

# The serial ports carry the output, the report and the exit status, each to a file of the host's.
out=$(echo dev/vport*p1)
[ -c "$out" ] || stop "no ports"
echo "guest: ready" >"$console"
chroot . /bin/sh /run/command </dev/null >"$out" 2>&1
status=$?
[ ! -e run/report.xml ] || cat run/report.xml >"${out%1}2"
sync
echo $status >"${out%1}3"
# Give the last port a moment: poweroff drops what the host has not read.
sleep 0.2
poweroff -f
