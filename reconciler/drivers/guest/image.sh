# What an image may lack, and who is its init. Read by init.sh, whose functions and variables it uses, once /dev, /sys and
# /run lie in the new root. An image may be a single program: every folder and file here may be missing.

# has_work: whether a busybox that is the image's init would find anything to do. Many images have that link without the
# rest: busybox is their shell, and its inittab was made for an openrc that is not there.
has_work() {
    program=/etc/init.d/rcS
    if [ -f $NEW/etc/inittab ]; then
        while IFS=: read -r _ _ action program; do
            [ "$action" != sysinit ] || break
            program=
        done <$NEW/etc/inittab
        program=${program%% *}
        [ -n "$program" ] || return 0
    fi
    [ -L "$NEW$program" ] || [ -x "$NEW$program" ]
}

# choose_init: the image's own init in $init and what it is in $kind: systemd, other, or banger, which is ours.
choose_init() {
    for init in /sbin/init /etc/init /bin/init /usr/lib/systemd/systemd /lib/systemd/systemd; do
        # -x of a link looks at what the link names here, not in the new root.
        [ -L $NEW$init ] || [ -x $NEW$init ] || continue
        target=$(chroot $NEW /run/banger/busybox readlink -f $init)
        if [ -d "$NEW$target" ] || [ ! -x "$NEW$target" ]; then
            continue
        fi
        kind=other
        case $target in
            */systemd) kind=systemd ;;
            */busybox*) has_work || continue ;;
            *) [ ! "$NEW$target" -ef $NEW/bin/busybox ] || has_work || continue ;;
        esac
        return 0
    done
    kind=banger init=/run/banger/supervise
}

# has_line FILE PATTERN: whether a line of the file begins like that.
has_line() {
    [ -f "$1" ] || return 1
    while IFS= read -r line; do
        case $line in $2*) return 0 ;; esac
    done <"$1"
    return 1
}

# What who enters the guest needs: a shell, and somebody to be. Other inits than ours bring it along, as a rule.
complete_image() {
    if [ ! -L $NEW/bin/sh ] && [ ! -x $NEW/bin/sh ]; then
        [ -d $NEW/bin ] || must mkdir $NEW/bin
        must ln -s /run/banger/busybox $NEW/bin/sh
    fi
    has_line $NEW/etc/passwd root: || echo 'root:x:0:0:root:/root:/bin/sh' >>$NEW/etc/passwd
    has_line $NEW/etc/group root: || echo 'root:x:0:' >>$NEW/etc/group
}

# lacks_sshd: whether ours is to listen. One in the image that does not read our settings has another host key.
lacks_sshd() {
    # Without a network nobody could reach it.
    [ -f $NEW/run/banger/config/mac ] || return 1
    [ $kind != banger ] && [ -x $NEW/usr/sbin/sshd ] || return 0
    ! has_line $NEW/etc/ssh/sshd_config 'Include /etc/ssh/sshd_config.d/'
}

# hand_over: ends the initramfs. What runs beside an init that is not ours survives that, since every init adopts what it
# finds; systemd starts the same by units.
hand_over() {
    choose_init
    [ $kind = systemd ] || complete_image
    echo $kind >$NEW/run/banger/init
    lacks_sshd && : >$NEW/run/banger/lacks-sshd
    if [ $kind != banger ] && [ -e $NEW/run/banger/image/is-init ]; then
        # It runs already.
        rm -f $NEW/run/banger/image/service
    fi
    if [ $kind = other ]; then
        chroot $NEW /run/banger/supervise beside <$NEW/dev/null >$NEW/dev/console 2>&1 &
    fi
    [ $kind != banger ] || exec switch_root $NEW $init pid1
    exec switch_root $NEW $init
}
