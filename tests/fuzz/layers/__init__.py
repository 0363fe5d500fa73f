"""The layers' reader against GNU tar and libarchive, over archives that somebody damaged on purpose."""
