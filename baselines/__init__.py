"""The methods that the benchmark compares, one file each; a ``conf/method`` file names one by its ``_target_``."""
