#!/bin/busybox sh
# The first program of every guest: finds its disks, puts the root file system together, configures what
# the image must not have to know (network, names, keys), and hands over to the image's own init.
#
# Everything is told by the config disk, as one file per value: nothing of it is ever evaluated by the shell.
# Each command below is a fork, and a fork is dear on an emulated CPU: what the shell can do by itself, it does.
# /proc is left to the image's init, since nothing here needs it.
#
# A failure is one line "banger: …" on the console, for which the host looks, and a reboot. The VMM is told to
# exit at a reboot, as it does after a kernel panic; a power-off would look like an orderly shutdown.

set -f
umask 022
export PATH=/bin

NEW=/newroot
# Where /dev, /sys and /run are mounted: in the initramfs's own root, and at last in the new one.
base=

fail() {
    printf '\nbanger: %s\n' "$*${broken:+ (kernel modules that did not load:$broken)}" >/dev/console
    # A hung console would otherwise swallow the line together with the machine.
    sync
    exec reboot -f
}

must() {
    "$@" || fail "failed: $*"
}

# value NAME: the first line of a file of the config disk, in $value; empty if there is none.
value() {
    value=
    [ ! -f "/run/banger/config/$1" ] || IFS= read -r value <"/run/banger/config/$1"
}

# scan: every virtio disk as "serial=/dev/vdX" in $disks.
scan() {
    disks=
    set +f
    for block in "$base"/sys/block/vd*; do
        [ -d "$block" ] || break
        serial=
        # The attribute has no final newline, so read reports the end of the file although it read the serial.
        read -r serial 2>/dev/null <"$block/serial"
        disks="$disks $serial=/dev/${block##*/}"
    done
    set -f
}

# disk SERIAL: the device of a disk, in $disk. Disks are there once their driver is loaded, as a rule; a device
# that comes late gets ten seconds.
disk() {
    tries=0
    while :; do
        for disk in $disks; do
            case $disk in "$1="*)
                disk=${disk#*=}
                [ ! -b "$base$disk" ] || return 0
                ;;
            esac
        done
        [ $tries -lt 200 ] || fail "the disk '$1' is missing; there are:${disks:- none}"
        tries=$((tries + 1))
        sleep 0.05
        scan
    done
}

# interface MAC: the name of a network interface, in $interface.
interface() {
    set +f
    for interface in /sys/class/net/*; do
        read -r mac <"$interface/address"
        if [ "$mac" = "$1" ]; then
            interface=${interface##*/}
            set -f
            return 0
        fi
    done
    fail "no network interface has the address $1"
}

configure_network() {
    must ip link set lo up
    value mac
    [ -n "$value" ] || return 0
    interface "$value"
    value mtu
    must ip link set "$interface" mtu "$value" up
    value address
    [ -n "$value" ] || return 0
    must ip address add "$value" dev "$interface"
    value gateway
    [ -z "$value" ] || must ip route add default via "$value"
    value address6
    [ -n "$value" ] || return 0
    # Usable a second later, when the kernel has made sure that nobody else has it (RFC 4862, section 5.4).
    must ip -6 address add "$value" dev "$interface"
    value gateway6
    [ -z "$value" ] || must ip -6 route add default via "$value" dev "$interface"
}

mount_root() {
    disk root
    must mount -t squashfs -o ro "$disk" /image
    disk overlay
    note_size "$disk"
    # The journal is replayed here after a crash.
    must mount -t ext4 -o noatime "$disk" /overlay
    [ -d /overlay/upper ] || must mkdir -p /overlay/upper /overlay/work
    must mount -t overlay -o lowerdir=/image,upperdir=/overlay/upper,workdir=/overlay/work overlay $NEW
    for folder in dev etc proc run sys; do
        [ -d $NEW/$folder ] || must mkdir $NEW/$folder
    done
    [ -d $NEW/root ] || must mkdir -m 700 $NEW/root
    [ -d $NEW/tmp ] || must mkdir -m 1777 $NEW/tmp
}

# What the image's owner may change later, and therefore is written once. The mark lies beside the upper layer:
# an image made from this layer is a new machine.
personalise() {
    [ ! -e /overlay/personalised ] || return 0
    # Removed first: a copy over a file keeps that file's mode, and one over a link goes astray.
    must rm -f $NEW/etc/hostname $NEW/etc/hosts $NEW/etc/machine-id $NEW/etc/resolv.conf
    must cp /run/banger/etc/* $NEW/etc/
    must ln -s /run/banger/resolv.conf $NEW/etc/resolv.conf
    must sync
    : >/overlay/personalised || fail "the overlay disk cannot be written"
}

# A link into /run: keys and settings are never part of the image's own files, and sshd passes over an
# Include whose file is gone.
configure_sshd() {
    [ -d $NEW/etc/ssh ] || return 0
    [ ! -L $NEW/etc/ssh/sshd_config.d/10-banger.conf ] || return 0
    [ -d $NEW/etc/ssh/sshd_config.d ] || must mkdir -p $NEW/etc/ssh/sshd_config.d
    must ln -sfn /run/banger/sshd.conf $NEW/etc/ssh/sshd_config.d/10-banger.conf
}

# A kernel that has all built in has no disk of modules, nor has one that is the image's own, with its modules.
mount_modules() {
    # Before merged /usr, /lib is a directory of its own.
    target=$NEW/usr/lib/modules
    [ -L $NEW/lib ] || target=$NEW/lib/modules
    [ -e /modules.disk ] || return 0
    disk modules
    [ -d $target ] || must mkdir -p $target
    must mount -t squashfs -o ro "$disk" $target
}

# Programs that run in any image, and the busybox among them, which everything in /run/banger is started by.
mount_tools() {
    disk tools
    must mkdir /run/banger/tools
    must mount -t squashfs -o ro,nodev "$disk" /run/banger/tools
    must ln -s tools/bin/busybox /run/banger/busybox
}

# The power button for the orderly stop, the balloon for memory that goes back to the host: only udev would load
# them. Straight from their places: modprobe would read the whole of modules.dep. A kernel that has them built in has
# no such files.
load_devices() {
    for driver in acpi/button input/evdev virtio/virtio_balloon; do
        for module in "$target"/*/kernel/drivers/"$driver".ko*; do
            [ ! -f "$module" ] || insmod "$module" || broken="$broken ${module##*/}"
        done
    done
}

# note_size DEVICE: keeps the size, in sectors, that a disk had when its file system was mounted. What grows the file
# system when the disk does (units.py) compares.
note_size() {
    read -r size <"$base/sys/block/${1##*/}/size"
    echo "$size" >"$base/run/banger/disks/${1##*/}"
}

# Mount points are resolved inside the new root: an absolute link of the image (/var/run) must not lead out of it.
mount_volumes() {
    while IFS= read -r line; do
        volume=${line%%/*} point=/${line#*/}
        disk "$volume"
        note_size "$disk"
        must chroot $NEW /run/banger/busybox mkdir -p "$point"
        # A service that found an empty folder in its data's place would fill it: better no machine than that.
        chroot $NEW /run/banger/busybox mount -t ext4 "$disk" "$point" || fail "volume $volume cannot be mounted at $point"
    done <"$base/run/banger/config/volumes"
}

# What the file asks for inside of the guest, and what it no longer asks for. In the new root, so that no link leads
# out of it. What cannot be written is told, and is no reason to have no machine.
write_files() {
    read -r machine <"$base/run/banger/etc/machine-id"
    read -r offset count <"$base/run/banger/config/files" || return 0
    [ "$count" != 0 ] || [ -d "$NEW/var/lib/banger/$machine/records" ] || return 0
    disk config
    chroot $NEW /run/banger/busybox sh /run/banger/files.sh "$disk" "$offset" >"$base/run/banger/files.log"
    while IFS= read -r line; do
        printf '\nbanger, files: %s\n' "$line" >"$base/dev/console"
    done <"$base/run/banger/files.log"
}

must mount -t devtmpfs devtmpfs /dev
must mount -t sysfs sysfs /sys
# The options with which systemd would mount it; it leaves alone what is mounted already.
must mount -t tmpfs -o mode=755,nosuid,nodev,size=20% tmpfs /run

broken=
set +f
for module in /modules/*; do
    insmod "$module" || broken="$broken ${module##*/}"
done
set -f

scan
disk config
must tar -x -f "$disk" -C /run

value hostname
must hostname "$value"
configure_network
mount_root
configure_sshd
mount_modules
mount_tools
set +f
personalise
load_devices
set -f

for folder in dev sys run; do
    must mount --move /$folder $NEW/$folder
done
base=$NEW
mount_volumes || fail "the config disk has no list of volumes"
write_files

# shellcheck source=/dev/null  # checked by itself
. /image.sh
hand_over
