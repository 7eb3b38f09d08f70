"""What this machine is to an engine."""

import os


def has_gpu() -> bool:
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd")


def cpu_environment() -> dict[str, str]:
    """Every core bound explicitly: left alone, vLLM's CPU build keeps torch on one thread.

    Values that the environment sets already win.
    """
    cores = sorted(os.sched_getaffinity(0))
    defaults = {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": str(len(cores)),
        "VLLM_CPU_KVCACHE_SPACE": "2",
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}
