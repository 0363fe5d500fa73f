# The guest's side of a workspace: says what there is, and does what it is told, line by line, over one connection.
# POSIX shell and git. Each answer is a line; a failure is one line "error …".
#
# Next to HEAD, .git/banger/pushed says what was shipped last (snapshot, commit, tree of the index, tree of the files),
# .git/banger/incoming what is being shipped, and .git/banger/index belongs to the files as they were shipped, so that
# a look at 50,000 files costs no more than git status does. Refs below refs/banger keep all that from git gc.
#
# Words that are split on purpose are our own lines, of object names and refs; `A && B || die` dies for either; and a
# listing is enough to see whether a folder is empty.
# shellcheck disable=SC2086,SC2015,SC2010,SC2143,SC2016

set -u
umask 022
LC_ALL=C GIT_TERMINAL_PROMPT=0 GIT_NO_REPLACE_OBJECTS=1
export LC_ALL GIT_TERMINAL_PROMPT GIT_NO_REPLACE_OBJECTS
empty=4b825dc642cb6eb9a060e54bf8d69288fbee4904

repo=$1
name=${repo##*/}
parent=${repo%/*}
[ -n "$parent" ] || parent=/
new=$parent/.$name.banger-new
work=$repo
gd=
tmp=

say() { printf '%s\n' "$*" || :; }

die() {
    [ -z "$tmp" ] || rm -f "$tmp" "$tmp.lock"
    [ -z "$locked" ] || rm -f "$locked"
    say "error $*"
    exit 0
}
locked=

g() {
    git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c gc.auto=0 -c core.quotePath=true -c safe.directory='*' \
        -c advice.addEmbeddedRepo=false -c core.safecrlf=false -C "$work" "$@"
}

gi() { GIT_INDEX_FILE=$tmp g "$@"; }

# Held on the folder that the repository lies in: nothing has to be made, and nothing stays.
lock() {
    [ -d "$parent" ] || return 0
    exec 9<"$parent"
    ! command -v flock >/dev/null 2>&1 || flock -w 60 9 || die "another push or pull of $repo goes on"
}

facts() {
    state='foreign' head='-' branch='-' pushed='' incoming=''
    if [ ! -e "$repo" ] && [ ! -L "$repo" ]; then
        state=absent
    elif [ ! -d "$repo" ]; then
        state='file'
    elif [ -z "$(ls -A "$repo" | grep -vx 'lost+found')" ]; then
        state=empty
    elif [ "$have_git" = 0 ]; then
        if [ -d "$repo/.git" ]; then
            state=repository gd=$repo/.git
        fi
    elif [ -e "$repo/.git" ] && gd=$(g rev-parse --absolute-git-dir 2>/dev/null); then
        state=repository
    fi
    say "state $state"
    if [ -n "$gd" ] && [ -f "$gd/banger/pushed" ]; then
        read -r pushed <"$gd/banger/pushed"
        say "pushed $pushed"
    fi
    if [ $state = repository ] && [ "$have_git" = 1 ]; then
        head=$(g rev-parse -q --verify 'HEAD^{commit}') || head=-
        branch=$(g symbolic-ref -q --short HEAD) || branch=-
        say "head $head"
        say "branch $branch"
        if [ -f "$gd/banger/incoming" ]; then
            read -r incoming <"$gd/banger/incoming"
            say "incoming $incoming"
        fi
        for sign in MERGE_HEAD:merge rebase-merge:rebase rebase-apply:rebase CHERRY_PICK_HEAD:cherry-pick \
            REVERT_HEAD:revert index.lock:lock; do
            [ ! -e "$gd/${sign%%:*}" ] || say "busy ${sign#*:}"
        done
        g for-each-ref --format='ref %(objectname) %(refname)' refs/heads
    fi
    say end
}

field() {
    word=$1
    shift
    shift $((word - 1))
    printf '%s' "$1"
}

# take_state: the files as a tree in $tree, and the index that goes with it in $tmp. Files that git does not track are
# not part of it, unless they were shipped.
take_state() {
    mkdir -p "$gd/banger" || die "cannot write to $gd"
    tmp=$gd/banger/state
    rm -f "$tmp" "$tmp.lock"
    if [ -n "$pushed" ] && [ -f "$gd/banger/index" ]; then
        base=$(field 4 $pushed)
        cp -p "$gd/banger/index" "$tmp" || die "cannot write to $gd"
        gi add -u -- . >/dev/null 2>&1 || die "git cannot read the files of $repo: $(gi add -u -- . 2>&1 | head -n 1)"
        # What is tracked since.
        g diff-index --cached --diff-filter=A --name-only -z "$base" | gi update-index --add --remove -z --stdin ||
            die "git cannot read the files of $repo"
    else
        base=$(g rev-parse -q --verify 'HEAD^{tree}') || base=$(g hash-object -t tree -w --stdin </dev/null)
        [ ! -f "$gd/index" ] || cp -p "$gd/index" "$tmp"
        gi add -u -- . >/dev/null 2>&1 || die "git cannot read the files of $repo"
    fi
    tree=$(gi write-tree 2>/dev/null) || die "git cannot describe the files of $repo"
}

report_state() {
    take_state
    say "tree $tree"
    staged=
    if [ -f "$gd/index" ]; then
        cp -p "$gd/index" "$gd/banger/staged" && staged=$(GIT_INDEX_FILE=$gd/banger/staged g write-tree 2>/dev/null)
        rm -f "$gd/banger/staged"
    else
        staged=$empty
    fi
    g diff-tree -r --raw --no-renames --full-index "$base" "$tree" | sed 's/^/change /'
    if [ -n "$incoming" ]; then
        say half
        g diff-tree -r --name-only "$(field 4 $incoming)" "$tree" | sed 's/^/half /'
    fi
    if [ -z "$staged" ]; then
        say "busy unmerged"
    else
        say "index $staged"
        was=$base
        [ -z "$pushed" ] || was=$(field 3 $pushed)
        was_head=$empty
        [ "$head" = - ] || was_head=$head
        if [ "$staged" != "$was" ] && [ "$staged" != "$tree" ]; then
            g diff-tree -r --name-only "$was" "$staged" | sed 's/^/staged /'
            g diff-tree -r --name-only "$tree" "$staged" | sed 's/^/stagednotfile /'
            g diff-tree -r --name-only "$was_head" "$staged" | sed 's/^/stagednothead /'
            if [ -n "$incoming" ]; then
                g diff-tree -r --name-only "$(field 3 $incoming)" "$staged" | sed 's/^/stagednothalf /'
            fi
        fi
    fi
    g ls-files --others --exclude-standard | sed 's/^/untracked /'
    if [ -n "$pushed" ] && [ "$head" != - ]; then
        was_head=$(field 2 $pushed)
        if [ "$was_head" = - ]; then
            say "ahead $(g rev-list --count HEAD)"
        else
            say "ahead $(g rev-list --count HEAD "^$was_head")"
        fi
    fi
    seen=$tree
    say end
}

# ask: which of the objects that follow are here.
ask() {
    wanted=
    while IFS= read -r line; do
        [ "$line" != end ] || break
        wanted="$wanted$line
"
    done
    printf %s "$wanted" | g cat-file --batch-check='has %(objectname)'
    say end
}

# receive: the lines that follow `go`, then the pack, to the end of the input.
receive() {
    target=$1 target_head=$2 target_branch=$3 target_index=$4 target_tree=$5 force=$6
    in_place=0
    fresh=0
    if [ $state = absent ] || [ $state = empty ]; then
        fresh=1
        mkdir -p "$parent" || die "cannot make $parent"
        [ -e /dev/fd/9 ] || lock
        if [ $state = empty ] && ! rmdir "$repo" 2>/dev/null; then
            in_place=1 # a mount point, as a rule
        else
            rm -rf "$new" || die "cannot remove $new"
            work=$new
        fi
        git init -q --template= "$work" 2>/dev/null || die "cannot make a repository in $work"
        gd=$work/.git
    fi
    mkdir -p "$gd/banger" || die "cannot write to $gd"
    pack=0
    while IFS= read -r line; do
        case $line in
            'user '*) [ $fresh = 0 ] || g config user.name "${line#user }" ;;
            'email '*) [ $fresh = 0 ] || g config user.email "${line#email }" ;;
            'shallow '*) printf '%s\n' "${line#shallow }" >>"$gd/banger/shallow" ;;
            'tag '*) printf '%s\n' "${line#tag }" >>"$gd/banger/tags" ;;
            pack) pack=1 && break ;;
            nopack) break ;;
            *) die "unexpected: $line" ;;
        esac
    done
    if [ -f "$gd/banger/shallow" ]; then
        [ ! -f "$gd/shallow" ] || cat "$gd/shallow" >>"$gd/banger/shallow"
        sort -u "$gd/banger/shallow" >"$gd/shallow.new" && mv "$gd/shallow.new" "$gd/shallow"
        rm -f "$gd/banger/shallow"
    fi
    if [ $pack = 1 ]; then
        trouble=$(g index-pack --stdin --fix-thin 2>&1 >/dev/null) || {
            [ $fresh = 0 ] || [ $in_place = 1 ] || rm -rf "$new"
            rm -f "$gd/banger/tags"
            die "the objects did not arrive: $(printf '%s' "$trouble" | tail -n 1)"
        }
    fi
    g cat-file -e "$target^{tree}" 2>/dev/null || die "the objects did not arrive"
    # From here on it is carried through, also when nobody listens any more.
    trap '' HUP INT TERM PIPE
    say "step unpacked"
    check_out
    finish
    say "done $target"
}

check_out() {
    if [ $fresh = 1 ]; then
        tmp=$gd/banger/state
        tree=$empty
    else
        take_state
        [ "$tree" = "$seen" ] || die "the files of $repo changed while they were looked at; try again"
        (set -C && : >"$gd/index.lock") 2>/dev/null || die "another git command is changing $repo; try again"
        locked=$gd/index.lock
    fi
    printf '%s\n' "$target $target_head $target_index $target_tree" >"$gd/banger/incoming.new" &&
        g update-ref refs/banger/incoming "$target" && mv "$gd/banger/incoming.new" "$gd/banger/incoming" ||
        die "cannot write to $gd"
    if [ $fresh = 0 ] || [ $in_place = 1 ]; then
        mind_collisions
    fi
    # A merge of two trees: what is the same in both is not touched, and what git finds changed makes it stop before it
    # has changed anything.
    if [ -f "$tmp" ]; then
        trouble=$(gi read-tree -m -u "$tree" "$target_tree" 2>&1) || die "$trouble"
    else
        trouble=$(gi read-tree -m -u "$target_tree" 2>&1) || die "$trouble"
    fi
}

# mind_collisions: a file that git does not track lies where one is to come. One with the same content is taken for it.
mind_collisions() {
    list=$gd/banger/added
    folders=$gd/banger/folders
    rm -f "$folders"
    g diff-tree -r -z --name-only --no-renames --diff-filter=A --ignore-submodules=all "$tree" "$target_tree" |
        (cd "$work" && xargs -0 sh -c '
            folders=$1
            shift
            for path; do
                if [ -d "$path" ] && [ ! -L "$path" ]; then
                    rmdir "$path" 2>/dev/null || printf "%s\n" "$path" >>"$folders"
                elif [ -e "$path" ] || [ -L "$path" ]; then
                    printf "%s\0" "$path"
                fi
            done' sh "$folders") >"$list"
    if [ -f "$folders" ]; then
        sed 's/^/collision /' "$folders"
        rm -f "$folders" "$list"
        drop_incoming
        die "folders lie where files are to come"
    fi
    if [ -s "$list" ]; then
        gi update-index --add --remove -z --stdin <"$list" || die "git cannot read the files of $repo"
        both=$(gi write-tree) || die "git cannot describe the files of $repo"
        # What differs there, less what differs anyway.
        g diff-tree -r --name-only --no-renames --diff-filter=MT "$both" "$target_tree" | sort >"$list.a"
        g diff-tree -r --name-only --no-renames --diff-filter=MT "$tree" "$target_tree" | sort >"$list.b"
        lost=$(comm -23 "$list.a" "$list.b")
        rm -f "$list.a" "$list.b"
        if [ -n "$lost" ] && [ "$force" != 1 ]; then
            printf '%s\n' "$lost" | sed 's/^/collision /'
            rm -f "$list"
            drop_incoming
            die "files that git does not track lie where others are to come"
        fi
        tree=$both
    fi
    rm -f "$list"
    if [ "$force" = 1 ] && [ "$head $tree" != "$(field 2 ${pushed:-- - - -}) $(field 4 ${pushed:-- - - -})" ]; then
        keep_replaced
    fi
}

drop_incoming() {
    rm -f "$gd/banger/incoming"
    g update-ref -d refs/banger/incoming
}

ours() {
    GIT_AUTHOR_NAME=banger GIT_AUTHOR_EMAIL=banger@localhost GIT_COMMITTER_NAME=banger \
        GIT_COMMITTER_EMAIL=banger@localhost g "$@"
}

# keep_replaced: what a forced push replaces stays as a commit.
keep_replaced() {
    parents=
    [ "$head" = - ] || parents="-p $head"
    kept=$(ours commit-tree $parents -m "Replaced by a forced push" "$tree") &&
        g update-ref "refs/banger/replaced/$(date +%Y%m%d-%H%M%S)" "$kept" || die "cannot keep what is replaced"
    say "kept $kept"
}

finish() {
    if [ "$target_index" != "$target_tree" ]; then
        cp -p "$tmp" "$tmp.index" && GIT_INDEX_FILE=$tmp.index g read-tree -m "$target_index" ||
            die "cannot write the index of $repo"
    else
        cp -p "$tmp" "$tmp.index" || die "cannot write the index of $repo"
    fi
    if [ "$target_branch" = - ]; then
        g update-ref --no-deref -m "banger: push" HEAD "$target_head"
    else
        g symbolic-ref -m "banger: push" HEAD "refs/heads/$target_branch" &&
            { [ "$target_head" = - ] || g update-ref -m "banger: push" "refs/heads/$target_branch" "$target_head"; }
    fi || die "cannot move HEAD of $repo"
    mv "$tmp.index" "$gd/index" && mv "$tmp" "$gd/banger/index" || die "cannot write the index of $repo"
    rm -f "$gd/index.lock"
    locked=
    if [ -f "$gd/banger/tags" ]; then
        while read -r object tag; do
            g rev-parse -q --verify "refs/tags/$tag" >/dev/null || printf 'create refs/tags/%s %s\n' "$tag" "$object"
        done <"$gd/banger/tags" | g update-ref --stdin
        rm -f "$gd/banger/tags"
    fi
    g update-ref refs/banger/pushed "$target" && mv "$gd/banger/incoming" "$gd/banger/pushed" &&
        g update-ref -d refs/banger/incoming || die "cannot write to $gd"
    [ ! -f "$work/.gitmodules" ] || g submodule -q init 2>/dev/null || :
    if [ $fresh = 1 ] && [ $in_place = 0 ]; then
        mv "$new" "$repo" || die "cannot move $new to $repo"
        work=$repo
        gd=$repo/.git
    fi
}

# export: all that is there as one commit, with files that git does not know yet, and the objects for it.
send_all() {
    revisions=
    while IFS= read -r line; do
        case $line in
            'have '*) ! g cat-file -e "${line#have }^{commit}" 2>/dev/null || revisions="$revisions ^${line#have }" ;;
            end) break ;;
        esac
    done
    take_state
    gi add -A -- . >/dev/null 2>&1 || die "git cannot read the files of $repo"
    tree=$(gi write-tree) || die "git cannot describe the files of $repo"
    rm -f "$tmp"
    parents=
    [ "$head" = - ] || parents="-p $head"
    export GIT_AUTHOR_DATE='@0 +0000' GIT_COMMITTER_DATE='@0 +0000'
    extra=
    if [ -n "$pushed" ]; then
        extra=$(ours commit-tree -m base "$(field 4 $pushed)") || die "git cannot write to $repo"
        parents="$parents -p $extra"
    fi
    made=$(ours commit-tree $parents -m "Workspace" "$tree") || die "git cannot write to $repo"
    say "snapshot $made $head $tree ${extra:--}"
    say pack
    printf '%s\n' "$made" $revisions | g pack-objects --revs --stdout --thin --delta-base-offset -q
}

# unpack: all of it as one archive, for a guest that has no git to do better. It appears whole, or not at all.
unpack() {
    [ $state = absent ] || [ $state = empty ] || die "$repo is not empty"
    mkdir -p "$parent" || die "cannot make $parent"
    [ -e /dev/fd/9 ] || lock
    rm -rf "$new" && mkdir "$new" || die "cannot make $new"
    unpacker=tar
    command -v tar >/dev/null 2>&1 || unpacker="/run/banger/busybox tar"
    trouble=$($unpacker -x -C "$new" -f - 2>&1) && [ -f "$new/.git/banger/pushed" ] || {
        rm -rf "$new"
        die "the files did not arrive: $(printf '%s' "$trouble" | tail -n 1)"
    }
    [ $state = absent ] || rmdir "$repo" || die "$repo cannot be replaced"
    mv "$new" "$repo" || die "cannot move $new to $repo"
    say "done"
}

have_git=0
say "banger-workspace 1"
if command -v git >/dev/null 2>&1; then
    have_git=1
    say "git $(git version)"
else
    say "git none"
fi
lock
facts
seen=
while IFS= read -r line; do
    case $line in
        quit) break ;;
        state) report_state ;;
        ask) ask ;;
        'go '*)
            receive ${line#go }
            break
            ;;
        unpack)
            unpack
            gd=
            break
            ;;
        export)
            send_all
            break
            ;;
        *) die "unexpected: $line" ;;
    esac
done
[ -z "$gd" ] || rm -f "$gd/banger/state" "$gd/banger/state.lock"
exit 0
