"""Ships git repositories into machines, and brings back what was done there. Knows no VM: a machine is whatever a
command line enters.

`snapshot` takes the state of a repository as commits, without touching it; `guest.sh` is the other side; `push` and
`pull` talk to it in one connection each, in git's own pack format; `compare` decides what would be lost. A repository
is never written to by a push, and by a pull gets objects and one branch, nothing else.
"""
