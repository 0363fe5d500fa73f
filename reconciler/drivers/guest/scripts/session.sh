#!/run/banger/busybox sh
# What runs for each ssh session of our server: the command or the shell, with the environment that the image asks for.

shell=${SHELL:-/bin/sh}
. /run/banger/image/environment
case ${SSH_ORIGINAL_COMMAND-} in
    '')
        exec "$shell" -l
        ;;
    /usr/lib/sftp-server) exec /run/banger/tools/bin/sftp-server ;;
    *) exec "$shell" -c "$SSH_ORIGINAL_COMMAND" ;;
esac
