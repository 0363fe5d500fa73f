#!/bin/busybox sh
# The first program of the guest in which images are made: puts a root file system together, runs the steps of a build in
# it, takes away what belongs to one machine only, and packs the rest into a squashfs on the disk `out`.
#
# Everything that is not ours is mounted, run and read here, never on the host. The disk `job` tells what to do, as one
# file per value: nothing of it is evaluated by the shell but the steps, in the image's own shell.
#
# Each line "banger: WORD …" on the console is for the host: `doing` and `failed`, and `done` at the end. Then a reboot,
# at which the VMM ends.

set -f
umask 022
export PATH=/bin

NEW=/newroot
JOB=/run/job

tell() {
    printf '\nbanger: %s\n' "$*" >/dev/console
}

fail() {
    tell "failed $*"
    sync
    exec reboot -f
}

must() {
    "$@" || fail "$*"
}

# disk SERIAL: the name of a disk, in $disk; empty if there is none. They are there once their driver is loaded.
disk() {
    disk=
    set +f
    for block in /sys/block/vd*; do
        serial=
        # The attribute has no final newline, so read reports the end of the file although it read the serial.
        read -r serial 2>/dev/null <"$block/serial"
        [ "$serial" != "$1" ] || disk=${block##*/}
    done
    set -f
}

# load NAME: a module, if there is one; a kernel that has it built in needs none.
load() {
    modprobe -q "$1" 2>/dev/null
}

# is_root FOLDER: whether a root file system is mounted there.
is_root() {
    [ -e "$1/etc/os-release" ] || [ -L "$1/etc/os-release" ] || { [ -d "$1/etc" ] && { [ -d "$1/bin" ] || [ -L "$1/bin" ]; }; }
}

# try DEVICE: mounts it at /image if it has a root file system.
try() {
    for type in squashfs ext4 xfs btrfs; do
        # The disk is a copy that goes: a journal is replayed, so that nothing that was synced is missing.
        mount -t $type -o ro "/dev/$1" /image 2>/dev/null || continue
        ! is_root /image || return 0
        # What distributions call the subvolume that they boot from.
        for subvolume in root @ @rootfs; do
            if [ $type = btrfs ] && is_root "/image/$subvolume"; then
                must umount /image
                must mount -t btrfs -o "ro,subvol=$subvolume" "/dev/$1" /image
                return 0
            fi
        done
        must umount /image
        return 1
    done
    return 1
}

# The whole disk, or else the first of its partitions that has a root file system.
mount_disk() {
    tell "doing looking for the root file system"
    disk root
    [ -n "$disk" ] || fail "there is no disk"
    found=
    set +f
    for device in "$disk" /sys/block/"$disk"/"$disk"*; do
        found="$found ${device##*/}"
    done
    set -f
    for device in $found; do
        ! [ -b "/dev/$device" ] || ! try "$device" || return 0
    done
    fail "no root file system was found on the disk; looked at:$found"
}

mount_image() {
    disk root
    must mount -t squashfs -o ro "/dev/$disk" /image
}

# The disk of a VM over its image, as the VM had it.
mount_vm() {
    mount_image
    disk overlay
    must mount -t ext4 -o ro "/dev/$disk" /overlay
    lower=/image
    [ ! -d /overlay/upper ] || lower=/overlay/upper:/image
}

# What is under $lower, with a layer over it that is not kept.
over_memory() {
    must mkdir /scratch/upper /scratch/work
    must mount -t overlay -o "lowerdir=$lower,upperdir=/scratch/upper,workdir=/scratch/work" overlay $NEW
}

over_disk() {
    disk overlay
    must mount -t ext4 -o noatime "/dev/$disk" /overlay
    must mkdir /overlay/upper /overlay/work
    must mount -t overlay -o "lowerdir=/image,upperdir=/overlay/upper,workdir=/overlay/work" overlay $NEW
}

# The user-mode network of QEMU (net/slirp.c): its addresses are always these.
network() {
    [ -e /sys/class/net/eth0 ] || return 0
    must ip link set lo up
    must ip link set eth0 up
    must ip address add 10.0.2.15/24 dev eth0
    must ip route add default via 10.0.2.2
    rm -f $NEW/etc/resolv.conf
    echo "nameserver 10.0.2.3" >$NEW/etc/resolv.conf || fail "the image has no /etc"
}

# inside COMMAND…: in the image, with an environment that is always the same.
inside() {
    env -i HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        chroot $NEW "$@" </dev/null >/dev/console 2>&1
}

run_steps() {
    for folder in proc sys dev run tmp; do
        [ -d $NEW/$folder ] || must mkdir $NEW/$folder
    done
    must mount -t proc proc $NEW/proc
    must mount -t sysfs sysfs $NEW/sys
    must mount -t devtmpfs devtmpfs $NEW/dev
    must mount -t tmpfs -o mode=755 tmpfs $NEW/run
    must mkdir $NEW/run/banger
    must cp /bin/busybox $NEW/run/banger/busybox
    must cp -R $JOB/steps $NEW/run/banger/steps
    network
    set +f
    for step in "$JOB"/steps/*; do
        [ -e "$step" ] || break
        name=${step##*/}
        read -r title <"$JOB/titles/${name%.*}"
        tell "doing $title"
        case $name in
            *.run) inside /bin/sh -e "/run/banger/steps/$name" || fail "step $title: it ended with exit code $?" ;;
            # Inside of the image, whose links may lead anywhere in it, and nowhere else.
            *.tar) inside /run/banger/busybox tar -x -f "/run/banger/steps/$name" -C / || fail "step $title" ;;
        esac
    done
    set -f
    for folder in run dev sys proc; do
        # What a step left running still has its files open.
        must umount -l $NEW/$folder
    done
}

# What belongs to one machine, and what a build has left behind.
clean() {
    tell "doing cleaning up"
    cd $NEW || fail "there is no root file system"
    # Never through a link: each of these is taken away by its own name.
    set +f
    for folder in etc/ssh etc var/lib/systemd var/log var/lib/dbus etc/ssh/sshd_config.d; do
        if [ -L "$folder" ] || [ ! -d "$folder" ]; then
            continue
        fi
        case $folder in
            etc/ssh) rm -f etc/ssh/ssh_host_*_key etc/ssh/ssh_host_*_key.pub ;;
            etc) rm -f etc/hostname etc/resolv.conf etc/machine-id && : >etc/machine-id ;;
            var/lib/systemd) rm -f var/lib/systemd/random-seed ;;
            var/lib/dbus) [ -L var/lib/dbus/machine-id ] || rm -f var/lib/dbus/machine-id ;;
            var/log) [ -L var/log/journal ] || rm -rf var/log/journal/* var/log/*.log ;;
            etc/ssh/sshd_config.d) rm -f etc/ssh/sshd_config.d/10-banger.conf ;;
        esac
    done
    for folder in tmp var/tmp run; do
        [ -L "$folder" ] || [ ! -d "$folder" ] || rm -rf "${folder:?}"/* "$folder"/.[!.]*
    done
    set -f
    cd /
}

must mount -t devtmpfs devtmpfs /dev
must mount -t sysfs sysfs /sys
must mount -t proc proc /proc
must mount -t tmpfs -o mode=755 tmpfs /run
must mount -t tmpfs -o mode=755 tmpfs /scratch

set +f
for module in /modules/*; do
    insmod "$module" || tell "doing without ${module##*/}, which does not load"
done
set -f

must mkdir $JOB
disk job
[ -n "$disk" ] || fail "there is no job"
must tar -x -f "/dev/$disk" -C $JOB
disk modules
must mount -t squashfs -o ro "/dev/$disk" /lib/modules
load xfs
load btrfs

read -r kind <$JOB/kind
case $kind in
    disk)
        mount_disk
        lower=/image
        over_memory
        ;;
    vm)
        mount_vm
        over_memory
        ;;
    build)
        mount_image
        over_disk
        run_steps
        ;;
    *) fail "this job is not known: $kind" ;;
esac
clean
tell "doing packing"
disk out
# Not compressed, like every image; of no moment of its own, so that the same tree gives the same bytes.
mksquashfs $NEW "/dev/$disk" -noappend -noI -noD -noF -noX -quiet -no-progress -exit-on-error -mem 96M \
    -mkfs-time 0 >/dev/console 2>&1 || fail "packing"
sync
tell "done"
exec reboot -f
