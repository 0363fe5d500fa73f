"""What banger adds to a guest's systemd. All of it lies in /run: nothing is written into the image.

The power button is how an orderly stop reaches the guest. systemd-logind would hear it, but is absent where dbus is,
and the button's drivers would come only with udev. So the initramfs loads them, and the guest gets a listener that needs nothing of the image:
busybox's acpid, which reads the button's input device and asks PID 1 to power off (scripts/power.sh). Where logind listens too, the
second request changes nothing.

A disk that the host makes larger while the guest runs is noticed by the kernel, which tells udev. The file system in
it is then grown by the image's own resize2fs, so that the host need not enter the guest. In an image without udev or
e2fsprogs nothing happens until the next start, before which the host grows what is left.
"""

from __future__ import annotations

from collections.abc import Mapping

POWER_UNIT = "banger-power.service"

# acpid looks for /dev/input/event0 once, at its start: the initramfs loaded the drivers before.
_POWER_SERVICE = """\
[Unit]
Description=Orderly shutdown when banger asks for it
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/run/banger/busybox acpid -f -l /dev/null -c /run/banger/power -p /run/banger/acpid.pid
Restart=on-failure
RestartSec=1
"""

# Services of Debian's that do nothing or fail in such a guest, and the program without which they are skipped. A
# condition rather than a mask: who installs the program gets the service.
_NEEDS = {
    # Clears snapshots of LVM away, through several seconds of shell script on an emulated CPU.
    "e2scrub_reap.service": "/sbin/lvm",
    # Fails where udev was installed without kmod, because the modules' disk has the list for it.
    "kmod-static-nodes.service": "/bin/kmod",
}

GROW_UNIT = "banger-grow.service"

# Started by the rule below, and once at the end of the boot: no rule was there yet when the initramfs mounted the disks.
_GROW_SERVICE = """\
[Unit]
Description=Lets file systems grow with their disks
DefaultDependencies=no
StartLimitIntervalSec=0
After=multi-user.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
PrivateMounts=yes
ExecStart=/run/banger/disks/grow
"""

# Linux: block/genhd.c, set_capacity_and_notify. udev's own sandbox allows no mount, so the work is the service's.
_GROW_RULE = (
    'ACTION=="change", SUBSYSTEM=="block", KERNEL=="vd*", ENV{RESIZE}=="1", '
    f'RUN+="/bin/systemctl --no-block start {GROW_UNIT}"\n'
)

# Each disk's note has the size for which its file system was made. The overlay's file system is mounted where no
# process sees it; the kernel gives a second mount of one disk the same file system, and resize2fs asks for a mounted
# one. A disk may grow again meanwhile, and systemd starts a service that runs already no second time: hence the loop.
_GROW_SCRIPT = """\
#!/run/banger/busybox sh
cd /run/banger/disks || exit 1
failed=0
again=1
while [ $again = 1 ]; do
    again=0
    for disk in vd*; do
        read -r size <"/sys/block/$disk/size" || continue
        read -r known <"$disk" || continue
        [ "$size" != "$known" ] || continue
        /run/banger/busybox mkdir -p mounted
        if /run/banger/busybox mount -t ext4 "/dev/$disk" mounted; then
            if resize2fs "/dev/$disk"; then
                echo "$size" >"$disk"
                again=1
            else
                failed=1
            fi
            /run/banger/busybox umount mounted
        else
            failed=1
        fi
    done
done
exit $failed
"""

# udev keeps the modules' index open to the last, so the unmount of a shutdown would fail, aloud. It is read-only.
_MODULES_STAY = "[Unit]\nDefaultDependencies=no\n"


def files() -> Mapping[str, tuple[str, int]]:
    """Path below /run, to content and mode."""
    return {
        f"systemd/system/{POWER_UNIT}": (_POWER_SERVICE, 0o644),
        f"systemd/system/{GROW_UNIT}": (_GROW_SERVICE, 0o644),
        "udev/rules.d/80-banger.rules": (_GROW_RULE, 0o644),
        # The folder of the notes too, which the initramfs makes.
        "banger/disks/grow": (_GROW_SCRIPT, 0o755),
        "systemd/system/usr-lib-modules.mount.d/banger.conf": (_MODULES_STAY, 0o644),
        **{
            f"systemd/system/{unit}.d/banger.conf": (f"[Unit]\nConditionFileIsExecutable={program}\n", 0o644)
            for unit, program in _NEEDS.items()
        },
    }


def links() -> Mapping[str, str]:
    """Path below /run, to the target of a symbolic link."""
    return {
        f"systemd/system/sysinit.target.wants/{POWER_UNIT}": f"../{POWER_UNIT}",
        f"systemd/system/multi-user.target.wants/{GROW_UNIT}": f"../{GROW_UNIT}",
    }
