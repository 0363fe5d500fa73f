# One step of a guest's provisioning, which comes on standard input. Runs in the guest, with nothing but busybox.
#   list                  tells the keys of the steps that are done
#   once KEY SECONDS      runs a step, and remembers it for good when it ends well
#   boot KEY SECONDS      likewise until the next boot
# Its output is the step's, both kinds in their order, of which the last 256 KiB count; its exit code is the step's.

b=/run/banger/busybox
IFS= read -r machine </run/banger/etc/machine-id || exit 2
once=/var/lib/banger/$machine/provisioned
boot=/run/banger/provisioned

if [ "$1" = list ]; then
    for marks in $once $boot; do
        [ ! -d $marks ] || $b ls $marks
    done
    exit 0
fi

marks=$once
[ "$1" = once ] || marks=$boot
umask 077
step=/run/banger/step
# In memory: what a step says may hold a secret.
log=/run/banger/step.log
$b mkdir -p $marks && $b cat >$step && $b chmod 700 $step || {
    echo "the step cannot be stored: is the disk full?"
    exit 1
}
IFS= read -r first <$step
umask 022
cd "${HOME:-/root}" 2>/dev/null || cd /
case $first in
    '#!'*) $b timeout "$3" $step ;;
    *) $b timeout "$3" sh -e $step ;;
esac </dev/null >$log 2>&1
code=$?
$b rm -f $step
$b tail -c 262144 $log
$b rm -f $log
[ $code != 0 ] || {
    : >"$marks/$2"
    $b sync
}
# 255 is how ssh says that it failed itself.
[ $code != 255 ] || code=254
exit $code
