"""What this machine is to an engine."""

import os


def has_gpu() -> bool:
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd")


SPIN_COUNT = "1000"
"""So often a thread of an engine looks for its next work before it sleeps: some 50 microseconds.

libgomp's own 300,000 are some 15 ms. Where something else runs on the other thread's core, this
thread spends its whole share of its own core on waiting. See docs/decisions/0028."""


def cpu_environment() -> dict[str, str]:
    """Every core bound explicitly: left alone, vLLM's CPU build keeps torch on one thread.
    Threads that wait give their core away.

    Values that the environment sets already win.
    """
    cores = sorted(os.sched_getaffinity(0))
    defaults = {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": str(len(cores)),
        "VLLM_CPU_KVCACHE_SPACE": "2",
    }
    if "OMP_WAIT_POLICY" not in os.environ:  # which says the same in OpenMP's own words
        defaults["GOMP_SPINCOUNT"] = SPIN_COUNT
    return {name: os.environ.get(name, value) for name, value in defaults.items()}
