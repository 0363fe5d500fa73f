#!/usr/bin/python3
"""A stand-in for qemu-system-x86_64 that runs no guest: a process with QEMU's name, command line, sockets and tap.

It is copied to where a real host has QEMU, and uses the standard library alone. Like QEMU it tells a wrong start by its
exit code, returns when its sockets listen, writes its pid file, holds its tap open, and serves one QMP client at a time.
"""

import fcntl
import itertools
import json
import os
import re
import socket
import struct
import sys

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
NAME = "qemu-system-x86_64"
GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}


def option(words, name):
    """The first value of an option, or None."""
    return next((value for key, value in itertools.pairwise(words) if key == name), None)


def listening(path):
    path = path.removeprefix("unix:").split(",")[0]
    if os.path.lexists(path):
        os.unlink(path)
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    made.listen()
    return made


def tap(netdev):
    found = re.search(r"^tap,.*\bifname=([^,]+)", netdev or "")
    if found is None:
        return None
    fd = os.open("/dev/net/tun", os.O_RDWR)
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", found[1].encode(), flags))
    return fd


def serve(listener):
    """QMP until `quit`, or until somebody presses the power button: this guest shuts down at once."""
    while True:
        client, _ = listener.accept()
        with client, client.makefile("rwb") as stream:
            try:
                say(stream, GREETING)
                for line in stream:
                    request = json.loads(line)
                    command = request.get("execute")
                    result = {"status": "running", "running": True} if command == "query-status" else {}
                    say(stream, {"return": result, "id": request.get("id")})
                    if command in ("quit", "system_powerdown"):
                        return
            except (OSError, ValueError):
                continue


def say(stream, message):
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def main(words):
    if "--version" in words:
        print("QEMU emulator version 7.2.0 (a stand-in)")
        return 0
    listener = listening(option(words, "-qmp"))
    console = re.search(r"path=([^,]+)", option(words, "-chardev") or "")
    serial = listening(console[1]) if console else None
    network = tap(option(words, "-netdev"))
    ready, done = os.pipe()
    if os.fork():
        os.close(done)
        return 0 if os.read(ready, 1) else 1
    os.setsid()
    with open(option(words, "-pidfile"), "w") as file:
        file.write(f"{os.getpid()}\n")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.write(done, b"1")
    os.close(done)
    os.chdir("/")
    serve(listener)
    del serial, network
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] != ["--as"]:
        # The kernel starts a script as its interpreter; the one who looks for VMMs goes by the first word.
        os.execv(sys.executable, [NAME, os.path.abspath(__file__), "--as", *sys.argv[1:]])
    sys.exit(main(sys.argv[2:]))
