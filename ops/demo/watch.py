"""What each role and store costs while the demo trades: memory and CPU, looked at once a second."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

import psutil

from ops.processes import Started


@dataclass(slots=True)
class Watch:
    """Looked at from the first `look` to the last. A process that comes later is a restarted role: all its CPU counts."""

    _rss_mb: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _cpu_from: dict[Started, float] = field(default_factory=dict)
    _cpu_to: dict[Started, float] = field(default_factory=dict)
    _looks: int = 0

    def look(self, processes: Iterable[Started]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                self._note(process, psutil.Process(process.pid))
        self._looks += 1

    def _note(self, process: Started, seen: psutil.Process) -> None:
        times = seen.cpu_times()
        now_s = times.user + times.system
        self._rss_mb[process.name].append(seen.memory_info().rss / 1e6)
        self._cpu_from.setdefault(process, 0.0 if self._looks else now_s)
        self._cpu_to[process] = now_s

    @property
    def rss_mb_max(self) -> dict[str, float]:
        return {name: round(max(samples), 1) for name, samples in self._rss_mb.items()}

    @property
    def rss_mb_thirds(self) -> dict[str, tuple[float, float, float]]:
        """The median of each third of the time."""
        return {name: _thirds(samples) for name, samples in self._rss_mb.items()}

    @property
    def cpu_s(self) -> dict[str, float]:
        spent: dict[str, float] = defaultdict(float)
        for process, until_s in self._cpu_to.items():
            spent[process.name] += until_s - self._cpu_from[process]
        return _rounded(spent)


def _thirds(samples: Sequence[float]) -> tuple[float, float, float]:
    """Of fewer than three samples every one stands for several thirds."""
    third = max(1, len(samples) // 3)
    middle = samples[third : len(samples) - third] or samples[-1:]
    first, last = samples[:third], samples[-third:]
    return round(median(first), 1), round(median(middle), 1), round(median(last), 1)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}
