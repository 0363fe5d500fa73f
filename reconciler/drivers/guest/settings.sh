# Puts variables and secrets where a guest's programs find them. Runs in the guest, with nothing but busybox, and touches
# memory only. Standard input is a tar archive: env, env.secret, sshd-env.conf, manager.conf, secrets/NAME, and a list with a
# line for each secret: name, mode and owner, divided by tabs. Only names and owners are ever said.

b=/run/banger/busybox
umask 077
tab='	'
new=/run/banger/settings.new

fail() {
    printf 'failed %s\n' "$1"
    $b rm -rf $new
    exit 1
}

$b rm -rf $new
$b mkdir $new && $b tar -x -m -f - -C $new || fail "it has no room in /run"
while IFS="$tab" read -r name mode owner; do
    $b chown "$owner" "$new/secrets/$name" 2>/dev/null || fail "secret $name: there is no $owner"
    $b chmod "$mode" "$new/secrets/$name"
done <$new/list

# A name that is followed while this happens leads to the old values or to the new ones.
$b rm -rf /run/banger/secrets.old
[ ! -e /run/banger/secrets ] || $b mv /run/banger/secrets /run/banger/secrets.old
$b chmod 711 $new/secrets
$b mv $new/secrets /run/banger/secrets
$b rm -rf /run/banger/secrets.old
$b chmod 644 $new/env
$b mv -f $new/env /run/banger/env
$b mv -f $new/env.secret /run/banger/env.secret

if [ -d /run/systemd/system ] && ! $b cmp -s $new/manager.conf /run/systemd/system.conf.d/50-banger.conf; then
    $b chmod 644 $new/manager.conf
    $b mkdir -p -m 755 /run/systemd/system.conf.d
    $b mv -f $new/manager.conf /run/systemd/system.conf.d/50-banger.conf
    systemctl daemon-reload >/dev/null 2>&1
fi

# sshd reads its settings when it is told to, ends no session for that, and writes its pid file anew once it listens.
if ! $b cmp -s $new/sshd-env.conf /run/banger/sshd-env.conf; then
    $b mv -f $new/sshd-env.conf /run/banger/sshd-env.conf
    pid=
    [ ! -s /run/sshd.pid ] || read -r pid </run/sshd.pid
    if [ -n "$pid" ] && $b rm -f /run/sshd.pid && $b kill -HUP "$pid" 2>/dev/null; then
        tries=0
        while [ ! -s /run/sshd.pid ] && [ $tries -lt 200 ]; do
            tries=$((tries + 1))
            $b sleep 0.05
        done
    fi
fi
$b rm -rf $new
