"""The commands of ``synthgrad``, a file each."""
