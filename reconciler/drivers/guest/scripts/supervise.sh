#!/run/banger/busybox sh
# Keeps running what banger has in a guest whose init is not systemd.
#
#   supervise beside    next to an init of the image's own
#   supervise pid1      is the init itself: reaps, runs the image's entrypoint, and ends the guest in order

. /run/banger/image/environment

# What a service may take to end before it is made to: seconds.
PATIENCE=10

uptime() {
    read -r now _ </proc/uptime
    now=${now%.*}
}

# A shell has what it starts in the background ignore these, for good: no Ctrl-C would end what runs in an ssh session.
heeding() {
    /run/banger/tools/bin/env --default-signal=INT,QUIT "$@"
}

# keep COMMAND...: runs it again whenever it ends, at first soon, at last every half minute.
keep() {
    pause=1
    while :; do
        uptime
        began=$now
        heeding "$@" </dev/null
        uptime
        [ $((now - began)) -lt 60 ] || pause=1
        sleep $pause
        [ $pause -ge 30 ] || pause=$((pause * 2))
    done
}

# serve: the image's entrypoint, until it ends with success. Through a pipe, because the console is root's alone, and
# images write to /dev/stdout as whoever they run as.
serve() {
    while :; do
        {
            heeding /run/banger/service
            echo $? >/run/banger/service.status
        } </dev/null 2>&1 | cat
        read -r status </run/banger/service.status
        [ "$status" != 0 ] || return
        echo "banger-supervise: the entrypoint ended with exit code $status"
        return "$status"
    done
}

start() {
    keep /run/banger/busybox acpid -f -l /dev/null -c /run/banger/power -p /run/banger/acpid.pid &
    keep /run/banger/agent &
    [ ! -e /run/banger/lacks-sshd ] || keep /run/banger/sshd &
    [ ! -e /run/banger/image/service ] || until serve; do sleep 2; done &
}

# alive: whether any process is left but this one. Threads of the kernel have no program.
alive() {
    for process in /proc/[0-9]*; do
        [ "$process" = /proc/1 ] || [ ! -e "$process/exe" ] || return 0
    done
    return 1
}

# gone SECONDS COMMAND...: waits until the command fails; whether it did in time.
gone() {
    left=$(($1 * 10))
    shift
    while "$@"; do
        [ $left -gt 0 ] || return 1
        left=$((left - 1))
        sleep 0.1
    done
}

serving() {
    [ -e "/proc/$served/exe" ]
}

stop_service() {
    [ -f /run/banger/service.pid ] || return
    read -r served </run/banger/service.pid
    signal=TERM
    [ ! -f /run/banger/image/signal ] || read -r signal </run/banger/image/signal
    target=$served
    if [ -e /run/banger/image/is-init ]; then
        # In a process namespace of its own: the signal is for the first process there.
        read -r target _ <"/proc/$served/task/$served/children"
    fi
    kill -"$signal" "$target" && gone $PATIENCE serving
}

finish() {
    stop_service
    kill -TERM -1
    gone 5 alive
    kill -KILL -1
    sync
    umount -a -r
    sync
    "$1" -f
}

# provide TYPE FOLDER FILE OPTIONS: mounts a file system of the kernel's unless its file is there. By busybox's own name,
# because it finds its programs through /proc.
provide() {
    [ ! -e "$2/$3" ] || return 0
    /run/banger/busybox mkdir -p "$2"
    /run/banger/busybox mount -t "$1" -o "nosuid,noexec,$4" "$1" "$2"
}

# beside: an init that mounts /proc gets the time for it, since some mount it over one that is there, and complain.
beside() {
    tries=0
    until [ -e /proc/uptime ] || [ $tries -ge 50 ]; do
        tries=$((tries + 1))
        /run/banger/busybox sleep 0.1
    done
    provide proc /proc uptime nodev
    provide devpts /dev/pts ptmx gid=5,mode=620,ptmxmode=666
    start
    wait
}

pid1() {
    provide proc /proc uptime nodev
    provide devpts /dev/pts ptmx gid=5,mode=620,ptmxmode=666
    mkdir -p /dev/shm
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
    ln -s /proc/self/fd /dev/fd
    for number in 0:stdin 1:stdout 2:stderr; do
        ln -s "/proc/self/fd/${number%:*}" "/dev/${number#*:}"
    done
    # As busybox's own init has it, so that its poweroff and reboot work.
    ending=
    trap 'ending=poweroff' USR1 USR2
    trap 'ending=reboot' TERM INT
    start
    while [ -z "$ending" ]; do
        # Reaps orphans, too.
        wait
    done
    finish "$ending" 2>/dev/null
}

case $1 in
    beside) beside ;;
    pid1) pid1 ;;
esac
