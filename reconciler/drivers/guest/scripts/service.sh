#!/run/banger/busybox sh
# The image's entrypoint, as whom and where the image says.

. /run/banger/image/environment
user='' workdir=/
# Sets these and the arguments.
. /run/banger/image/service

refuse() {
    echo "banger-service: $*"
    exit 125
}

# look_up FILE NAME: the entry of a name or number, in $entry_*.
look_up() {
    [ -f "$1" ] || return 1
    while IFS=: read -r entry_name _ entry_id entry_gid _ entry_home _; do
        if [ "$entry_name" = "$2" ] || [ "$entry_id" = "$2" ]; then
            return 0
        fi
    done <"$1"
    return 1
}

numeric() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
}

name=${user%%:*} group=
[ "$name" = "$user" ] || group=${user#*:}
uid=0 gid=0 home=/root groups=--clear-groups
if look_up /etc/passwd "${name:-0}"; then
    uid=$entry_id gid=$entry_gid home=$entry_home groups=--init-groups
elif numeric "$name"; then
    uid=$name home=/
elif [ -n "$name" ]; then
    refuse "the image has no user $name, which is to run its entrypoint"
fi
if [ -n "$group" ]; then
    groups=--clear-groups
    if look_up /etc/group "$group"; then
        gid=$entry_id
    elif numeric "$group"; then
        gid=$group
    else
        refuse "the image has no group $group, which is to run its entrypoint"
    fi
fi
HOME=${HOME:-$home} HOSTNAME=$(hostname)
export HOME HOSTNAME

mkdir -p "$workdir"
cd "$workdir" || refuse "the folder $workdir of the entrypoint is none"

# In the image's PATH, and not by the shell, which would take its own programs first.
program=
case $1 in
    */*) program=$1 ;;
    *)
        IFS=:
        for folder in $PATH; do
            if [ -f "$folder/$1" ] && [ -x "$folder/$1" ]; then
                program=$folder/$1
                break
            fi
        done
        unset IFS
        ;;
esac
[ -n "$program" ] || refuse "the image has no program $1, which is its entrypoint"
shift
set -- "$program" "$@"

chown "$uid" /proc/self/fd/1 2>/dev/null
if [ "$uid:$gid" != 0:0 ]; then
    set -- /run/banger/tools/bin/setpriv --reuid="$uid" --regid="$gid" $groups "$@"
fi
if [ -e /run/banger/image/is-init ]; then
    # It insists on being the first of all processes.
    set -- /run/banger/tools/bin/unshare --pid --fork --kill-child --mount-proc "$@"
fi
echo $$ >/run/banger/service.pid
exec "$@"
