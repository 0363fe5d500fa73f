# Makes the files of this guest what a list says. Runs in the guest, with nothing but busybox: before the init at a
# start, and in a running guest when something has changed. A tar archive tells it, on a disk $1 behind $2 blocks of
# 4096 bytes, or without those on standard input:
#   files/list          a line for each entry: key, kind, mode, owner, sha256 of the content, path; divided by tabs
#   files/content/KEY   a file's content, or a link's target
#
# What was written is remembered in $state, which belongs to this machine: an image made of it is another one.
#   records/KEY    what stands at a path because of us (or "begun" and that, while it is being put there), and the path
#   originals/KEY  what stood there before
#   changed/       what the guest had made of a file of ours, when it was replaced
#   folders        those that were made for our files
# Each step comes after the record of it, so that a kill at any point loses nothing and the next run goes on.
#
# What is said, one line each: "failed PATH: why", "saved PATH: where to", "kept PATH: why". Fails if anything failed.

b=/run/banger/busybox
umask 077
tab='	'
IFS= read -r machine </run/banger/etc/machine-id || exit 2
state=/var/lib/banger/$machine
in=$state/incoming
failed=0
changed=0

say() {
    printf '%s\n' "$*"
}

fail() {
    say "failed $path: $1"
    failed=1
}

# sum_of PATH: kind and sha256 of what stands there, in $sum; empty if nothing does.
sum_of() {
    if [ -L "$1" ]; then
        sum=$($b readlink "$1" && echo .)
        # Without the line break that readlink adds.
        sum=$(printf '%s' "${sum%??}" | $b sha256sum)
        sum="link ${sum%% *}"
    elif [ -f "$1" ]; then
        sum=$($b sha256sum <"$1")
        sum="file ${sum%% *}"
    elif [ -e "$1" ]; then
        sum=other
    else
        sum=
    fi
}

# make_folder PATH OWNER MODE: and what is missing above it, which gets the owner too.
make_folder() {
    [ ! -d "$1" ] || return 0
    [ -z "${1%/*}" ] || make_folder "${1%/*}" "$2" 755 || return 1
    printf '%s\n' "$1" >>$state/folders
    $b mkdir -m 700 "$1" 2>/dev/null && $b chown "$2" "$1" 2>/dev/null && $b chmod "$3" "$1"
}

# keep_record TEXT: what stands, or is about to stand, at $path.
keep_record() {
    printf '%s\n%s\n' "$1" "$path" >"$record.new" && $b mv -f "$record.new" "$record"
}

# keep FROM TO: another name for what stands at FROM, or a copy where that cannot be.
keep() {
    $b rm -rf "$2"
    $b ln "$1" "$2" 2>/dev/null || $b cp -a "$1" "$2"
}

# set_aside: a copy of what stands at $path, which is the guest's own, in $saved.
set_aside() {
    number=1
    while [ -e "$state/changed/$key.$number" ] || [ -L "$state/changed/$key.$number" ]; do
        number=$((number + 1))
    done
    saved=$state/changed/$key.$number
    keep "$path" "$saved"
}

# own PATH: gives it to $owner; at first everything is root's.
own() {
    [ "$owner" = root:root ] || $b chown -h "$owner" "$1" 2>/dev/null
}

# put: writes the entry $key $kind $mode $owner $content to $path, where $had is what the record says of it.
put() {
    want="$kind $mode $owner $content"
    if [ -d "$path" ] && [ ! -L "$path" ]; then
        fail "a folder is there"
        return
    fi
    make_folder "${path%/*}" "$owner" 755 || {
        fail "its folder cannot be made for $owner"
        return
    }
    new=${path%/*}/.banger-$key
    if [ -e "$new" ] || [ -L "$new" ]; then
        $b rm -rf "$new"
    fi
    if [ "$kind" = link ]; then
        $b ln -s -- "$($b cat "$in/files/content/$key")" "$new" && own "$new"
    else
        $b mv "$in/files/content/$key" "$new" && own "$new" && $b chmod "$mode" "$new"
    fi || {
        $b rm -rf "$new"
        fail "it cannot be written for $owner"
        return
    }
    sum_of "$path"
    if [ -z "$had" ]; then
        if [ -n "$sum" ]; then
            keep "$path" "$state/originals/$key" || {
                $b rm -rf "$new"
                fail "what is there cannot be kept"
                return
            }
        fi
    elif [ -n "$sum" ] && [ "$sum" != "${had%% *} ${had##* }" ] && [ "$sum" != "$kind $content" ] && [ "${had%% *}" != begun ]; then
        set_aside || {
            $b rm -rf "$new"
            fail "what the guest made of it cannot be kept"
            return
        }
        say "saved $path: it was changed in the guest, and replaced; what it was is $saved"
    fi
    keep_record "begun $want" && $b mv -f "$new" "$path" && keep_record "$want" || fail "it cannot be put in its place"
    changed=1
}

# take_back: what $record tells of is no longer asked for.
take_back() {
    { IFS= read -r had && IFS= read -r path; } <"$record" || {
        $b rm -f "$record"
        return
    }
    had=${had#begun }
    original=$state/originals/$key
    new=${path%/*}/.banger-$key
    [ ! -e "$new" ] && [ ! -L "$new" ] || $b rm -rf "$new"
    sum_of "$path"
    if [ -n "$sum" ] && [ "$sum" != "${had%% *} ${had##* }" ]; then
        if [ -e "$original" ] || [ -L "$original" ]; then
            set_aside=$state/changed/$key.original
            $b mv -f "$original" "$set_aside"
            say "kept $path: it was changed in the guest; what was there before banger is $set_aside"
        else
            say "kept $path: it was changed in the guest"
        fi
    elif [ -e "$original" ] || [ -L "$original" ]; then
        keep "$original" "$new" && $b mv -f "$new" "$path" || {
            fail "what was there before cannot be put back"
            return
        }
    else
        $b rm -f "$path" || {
            fail "it cannot be removed"
            return
        }
    fi
    $b rm -f "$record"
    $b rm -rf "$original"
    changed=1
}

unpack() {
    if [ $# = 2 ]; then
        $b dd if="$1" bs=4096 skip="$2" 2>/dev/null | $b tar -x -m -f - -C "$in"
    else
        $b tar -x -m -f - -C "$in"
    fi
}

$b rm -rf "$in"
$b mkdir -p "$in" $state/records $state/originals $state/changed && unpack "$@" || {
    say "failed /var/lib/banger: the files do not fit, or cannot be unpacked"
    exit 1
}
: >>$state/folders

# Of what is known, what is no longer asked for, in one go.
gone=$({
    $b cut -f1 "$in/files/list" | $b sed 's/^/w /'
    $b ls $state/records | $b sed 's/^/h /'
} | $b awk '$1 == "w" { wanted[$2] } $1 == "h" && !($2 in wanted) && $2 !~ /new$/ { print $2 }')
for key in $gone; do
    record=$state/records/$key
    take_back
done

# Empty folders of ours that nothing is in any more, the deepest first.
if [ -n "$gone" ]; then
    $b sort -ru $state/folders | while IFS= read -r folder; do
        $b rmdir "$folder" 2>/dev/null || [ ! -d "$folder" ] || printf '%s\n' "$folder"
    done >$state/folders.new
    $b mv -f $state/folders.new $state/folders
fi

while IFS="$tab" read -r key kind mode owner content path; do
    if [ "$kind" = folder ]; then
        if [ -e "$path" ] && [ ! -d "$path" ]; then
            fail "it is not a folder"
        else
            make_folder "$path" "$owner" "$mode" || fail "it cannot be made for $owner"
        fi
        continue
    fi
    record=$state/records/$key
    had=
    [ ! -f "$record" ] || IFS= read -r had <"$record"
    [ "$had" = "$kind $mode $owner $content" ] || put
done <"$in/files/list"

$b rm -rf "$in"
[ $changed = 0 ] || $b sync
exit $failed
