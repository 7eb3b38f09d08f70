"""The trainer: takes training jobs, runs TRL in a child process, publishes checkpoints.

The service process imports no torch: what needs it runs in a spawned child,
because CUDA does not survive a fork and because memory comes back for certain
when a child ends.
"""
