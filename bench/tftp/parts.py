"""The parts of the benchmark: what is run, in which order, and what is written down.

One rule: measurements are kept raw, round by round; judge.py and table.py make sense of them, now or later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from bench.tftp import work
from bench.tftp.judge import fault
from bench.tftp.measure import Bench, Run
from bench.tftp.peers import EVERYBODY, PBSERV_SINGLE, REFLECTOR, Peer
from bench.tftp.work import Work

CACHE_MB = 64


class Plan:
    """What the command line asked for."""

    def __init__(
        self, bench: Bench, rounds: int, rows: Sequence[str], say: Callable[[str], None], *, quick: bool, gro: bool
    ) -> None:
        self._bench = bench
        self._rounds = rounds
        self._rows = rows
        self._say = say
        self._quick = quick
        self._gro = gro

    def rows(self) -> list[dict[str, Any]]:
        found = []
        for row in work.ROWS:
            if self._rows and row.key not in self._rows:
                continue
            self._say(row.title)
            peers = (*EVERYBODY, PBSERV_SINGLE) if row.work.window == 1 else EVERYBODY
            rounds = self._compare(peers, [row.work] * self._rounds)
            found.append({**asdict(row), "work": asdict(row.work), "rounds": rounds})
        return found

    def loss(self) -> list[dict[str, Any]]:
        found = []
        losses = work.LOSSES[1:2] if self._quick else work.LOSSES
        for loss in losses:
            for window in work.LOSS_WINDOWS:
                self._say(f"{loss:.1%} lost, windowsize {window}")
                works = [work.lossy(loss, window, seed) for seed in range(1, self._few + 1)]
                found.append({"loss": loss, "window": window, "rounds": self._compare(EVERYBODY, works)})
        return found

    def probe(self) -> list[dict[str, Run]]:
        self._say("new clients while 64 windowed transfers run")
        return self._compare(EVERYBODY, [work.newcomers()] * self._few)

    def memory(self) -> list[dict[str, Any]]:
        found = []
        for title, size in (("1 MiB from the cache", work.MIB), ("1 GiB from the disk", work.GIB)):
            self._say(f"{work.MEMORY_CLIENTS} transfers of {title}")
            rounds = self._compare(EVERYBODY, [work.crowd(size)], watch_memory=True)
            about = {"title": title, "clients": work.MEMORY_CLIENTS, "cache_mb": CACHE_MB}
            found.append({**about, "rounds": rounds})
        return found

    def scale(self) -> list[dict[str, Any]]:
        found = []
        for window in work.SCALE_WINDOWS[: 1 if self._quick else None]:
            for clients in work.SCALE_CLIENTS[:: 5 if self._quick else 1]:
                self._say(f"{clients} clients, windowsize {window}")
                rounds = self._compare(EVERYBODY, [work.scale(clients, window)] * self._few)
                found.append({"clients": clients, "window": window, "rounds": rounds})
        return found

    def ceiling(self) -> list[dict[str, Any]]:
        """What the generator can drive: nobody's figure can be more than that of a server that does nothing."""
        found = []
        for row in work.ROWS:
            if row.key in work.CEILING_ROWS:
                self._say(f"{row.title}: the reflector")
                found.append({"title": row.title, "rounds": self._compare([REFLECTOR], [row.work] * self._few)})
        return found

    @property
    def _few(self) -> int:
        """Rounds of what is reported beside the rows."""
        return min(self._rounds, 3)

    def _compare(
        self, peers: Sequence[Peer], works: Sequence[Work], *, watch_memory: bool = False
    ) -> list[dict[str, Run]]:
        """One round for each work; who begins changes from round to round."""
        rounds = []
        for number, asked in enumerate(works):
            turn = number % len(peers)
            one = {}
            for peer in (*peers[turn:], *peers[:turn]):
                given = replace(work.quick(asked) if self._quick else asked, gro=self._gro)
                one[peer.name] = self._bench.run(peer, given, watch_memory=watch_memory)
                if fault(one[peer.name]):
                    self._say(f"  round {number + 1}, {peer.name}: {fault(one[peer.name])}")
            rounds.append(one)
        return rounds


PARTS: dict[str, Callable[[Plan], Any]] = {
    "rows": Plan.rows,
    "loss": Plan.loss,
    "probe": Plan.probe,
    "memory": Plan.memory,
    "scale": Plan.scale,
    "ceiling": Plan.ceiling,
}
