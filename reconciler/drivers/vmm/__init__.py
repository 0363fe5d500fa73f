"""Virtual machine monitors: what a backend must do, QEMU's microvm, and how a VMM process is recognised."""
