#!/run/banger/busybox sh
# The guest's agent. udev would give its port a name, and may not be there.

. /run/banger/image/environment
export HOME=/root

for port in /sys/class/virtio-ports/*; do
    name=
    [ ! -e "$port/name" ] || read -r name <"$port/name"
    if [ "$name" = org.qemu.guest_agent.0 ]; then
        exec /run/banger/tools/bin/qemu-ga -m virtio-serial -p "/dev/${port##*/}" -t /run/banger -f /run/banger/agent.pid
    fi
done
echo "banger-agent: the VM has no port for an agent" >&2
exit 1
