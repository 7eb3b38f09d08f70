"""The `rewardloop` command. A file per group of commands; no logic that a service needs."""
