#!/run/banger/busybox sh
# The ssh server of an image that has none: dropbear, with the host key that the host knows, for whoever has a home.

KEYS=/run/banger/authorized_keys

# allow HOME UID: lets our keys in. The server reads one file only, so what the user has there is joined with ours.
allow() {
    [ -d "$1" ] || return
    [ -d "$1/.ssh" ] || mkdir -m 700 "$1/.ssh" || return
    own="$1/.ssh/authorized_keys"
    if [ -f "$own" ] && [ "$(readlink "$own")" != $KEYS ]; then
        cat "$own" $KEYS >"$KEYS.$2"
        umount "$own" 2>/dev/null
        mount --bind "$KEYS.$2" "$own"
    else
        ln -sfn $KEYS "$own"
    fi
    chown "$2" "$1/.ssh"
}

# known_shell SHELL: whether the server lets in who has this shell (getusershell(3)).
known_shell() {
    [ -f /etc/shells ] || return 1
    while IFS= read -r line; do
        [ "$line" != "$1" ] || return 0
    done </etc/shells
    return 1
}

# Who cannot run a shell in this image gets one that can.
while IFS=: read -r name password uid gid comment home shell || [ -n "$name" ]; do
    case ${shell:=/bin/sh} in
        */nologin | */false) [ "$uid" != 0 ] || shell=/bin/sh ;;
        *) [ -x "$shell" ] || shell=/bin/sh ;;
    esac
    if [ "$uid" = 0 ]; then
        mkdir -p "$home"
    fi
    if [ "$uid" = 0 ] || { [ "$uid" -ge 1000 ] && [ "$uid" -lt 60000 ]; }; then
        allow "$home" "$uid"
        known_shell "$shell" || echo "$shell" >>/etc/shells
    fi
    echo "$name:$password:$uid:$gid:$comment:$home:$shell"
done </etc/passwd >/run/banger/passwd
cmp -s /run/banger/passwd /etc/passwd || cat /run/banger/passwd >/etc/passwd

key=/run/banger/dropbear_key
[ -f $key ] || /run/banger/tools/bin/dropbearconvert openssh dropbear /run/banger/ssh_host_ed25519_key $key 2>/dev/null
# -F stays, -s no passwords, -z and -T as they are; what it says of each connection goes to syslog, if there is one.
exec /run/banger/tools/bin/dropbear -F -s -r $key -P /run/banger/dropbear.pid -c /run/banger/session
