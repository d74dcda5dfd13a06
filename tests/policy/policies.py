"""Devices, objects and questions for tests of the decision: made by hand, and by Hypothesis."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from pbserv.policy.decide import Query
from pbserv.policy.model import Assignment, Bundle, Folder, Group, Menu, MenuItem, PolicyObject, Rule
from pbserv.policy.snapshot import Snapshot, Zone
from pbserv.registry.records import BundleKind, Device, DeviceState, Finish, Run, Work, WorkState

MAC = "52:54:00:00:00:01"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)  # a Saturday
LINUX = Bundle(name="rescue", kind=BundleKind.LINUX, kernel="vmlinuz")
OTHER = Bundle(name="other", kind=BundleKind.LINUX, kernel="vmlinuz")
RESTORE = Bundle(name="win11", kind=BundleKind.RESTORE, image="win11")
DISK = Bundle(name="disk", kind=BundleKind.LOCAL)
QUIET = Bundle(name="quiet", kind=BundleKind.NOTHING)
BUNDLES: tuple[PolicyObject, ...] = (LINUX, OTHER, RESTORE, DISK, QUIET)


def device(
    mac: str = MAC, *, state: DeviceState = DeviceState.KNOWN, uuid: str | None = None, work: Work | None = None,
    macs: tuple[str, ...] = (), folder: str = "/", groups: tuple[str, ...] = (), menu: str = "", loader: str = "",
    arguments: str = "", runs: tuple[Run, ...] = (), labels: tuple[tuple[str, str], ...] = (),
) -> Device:  # fmt: skip
    return Device(
        mac, uuid, "till-1", 7, state, "", NOW, NOW, work, macs, folder=folder, groups=groups, menu=menu, loader=loader,
        arguments=arguments, runs=runs, labels=labels,
    )  # fmt: skip


def work(state: WorkState = WorkState.QUEUED, expires: datetime | None = None, assignment: str = "") -> Work:
    return Work(
        7, MAC, BundleKind.RESTORE, "debian", "", Finish.REBOOT, False, state, "", NOW, expires=expires,
        assignment=assignment,
    )  # fmt: skip


def assign(name: str, bundle: str = "rescue", *, device: str = "", group: str = "", folder: str = "", priority: int = 0,
           schedule: str = "", arguments: str = "", enabled: bool = True) -> Assignment:  # fmt: skip
    return Assignment(
        name=name, bundle=bundle, device=device, group=group, folder=folder, priority=priority, schedule=schedule,
        arguments=arguments, enabled=enabled,
    )  # fmt: skip


NAMES = st.sampled_from(["a", "b", "c"])
FOLDERS = st.sampled_from(["/", "/n", "/n/x", "/n/x/y", "/s"])
MACS = [f"52:54:00:00:00:{n:02x}" for n in range(1, 9)]
UUIDS = [None, "4c4c4544-0042-3510-8052-b3c04f4b4e32", "32d40b4c-6f4b-11e4-8a7f-3464a9123456",
         "03000200-0400-0500-0006-000700080009"]  # fmt: skip
SCHEDULES = st.sampled_from(["", "", "once", "at 2026-11-20 10:00", "at 2027-01-01 00:00", "cron 0 2 * * *",
    "window sat 08:00-18:00", "window sun 08:00-18:00", "once until 2026-01-01"])  # fmt: skip
WHENS = st.sampled_from(["true", "false", 'state == "known"', 'arch == "UEFI x64"', 'like(folder, "/n*")',
    'group == "a" or group == "b"', "memory_mb >= 8", 'memory_mb in ["8", "16"] and has(group)'])  # fmt: skip
_KINDS = st.sampled_from([
    {"kind": BundleKind.LINUX, "kernel": "vmlinuz"}, {"kind": BundleKind.RESTORE, "image": "i"},
    {"kind": BundleKind.LOCAL}, {"kind": BundleKind.NOTHING}, {"kind": BundleKind.MAINTENANCE},
    {"kind": BundleKind.IPXE, "script": "exit"}, {"kind": BundleKind.MULTICAST, "image": "i", "clients": 3},
])  # fmt: skip
BUNDLE = st.builds(lambda name, rest: Bundle(name=name, **rest), NAMES, _KINDS)
GROUP = st.builds(Group, name=NAMES, folder=FOLDERS, priority=st.integers(-1, 1))
FOLDER = st.builds(Folder, name=FOLDERS, menu=st.sampled_from(["", "a", "none"]), arguments=st.sampled_from(["", "x"]))
RULE = st.builds(
    Rule, name=NAMES, when=WHENS, bundle=NAMES, position=st.integers(0, 2), schedule=SCHEDULES,
    arguments=st.sampled_from(["", "r"]), enabled=st.booleans(), unknown=st.booleans(),
)  # fmt: skip
ASSIGNMENT = st.builds(
    lambda name, place, **rest: Assignment(name=name, **place, **rest),
    st.text("abcdef", min_size=1, max_size=2),
    st.one_of(
        st.sampled_from(MACS).map(lambda mac: {"device": mac}), NAMES.map(lambda group: {"group": group}),
        FOLDERS.map(lambda folder: {"folder": folder}),
    ),
    bundle=st.sampled_from(["a", "b", "c", "missing"]), priority=st.integers(-1, 1), schedule=SCHEDULES,
    arguments=st.sampled_from(["", "z"]), enabled=st.booleans(),
)  # fmt: skip
ITEM = MenuItem(name="local", title="Local", action="local")
MENU = st.builds(Menu, name=NAMES, show=st.sampled_from(["always", "never", "key"]), items=st.just((ITEM,)))
OBJECTS = st.lists(st.one_of(BUNDLE, BUNDLE, GROUP, FOLDER, RULE, ASSIGNMENT, ASSIGNMENT, MENU), max_size=25)
ZONES = st.builds(
    Zone, default=st.sampled_from(["silent", "local", "loader", "menu"]),
    unknown=st.sampled_from(["silent", "local", "loader", "menu"]), engine=st.sampled_from(["", "", "10.0.0.9:998"]),
)  # fmt: skip
RUN = st.builds(
    Run, assignment=st.text("abcdef", min_size=1, max_size=2) | NAMES.map(lambda name: f"rule:{name}"),
    state=st.sampled_from([WorkState.DONE, WorkState.HELD, WorkState.FAILED]),
    ended=st.sampled_from([NOW - timedelta(days=days) for days in (0, 1, 2, 90)]),
)  # fmt: skip
WORK = st.builds(
    Work, st.just(7), st.just(MAC), st.sampled_from([BundleKind.RESTORE, BundleKind.LINUX]), st.just("i"), st.just(""),
    st.just(Finish.REBOOT), st.just(False), st.sampled_from([WorkState.QUEUED, WorkState.RUNNING]), st.just(""),
    st.just(NOW), assignment=NAMES, expires=st.sampled_from([None, NOW - timedelta(1), NOW + timedelta(1)]),
)  # fmt: skip


def devices(mac: str) -> st.SearchStrategy[Device]:
    """The further address of a device is its own in the last byte, plus 16: no two devices have one."""
    further = mac[:-2] + f"{int(mac[-2:], 16) + 16:02x}"
    return st.builds(
        Device, st.just(mac), st.sampled_from(UUIDS), st.just("n"), st.sampled_from([None, 0, 7]),
        st.sampled_from([DeviceState.KNOWN, *DeviceState]), st.just(""), st.just(NOW), st.just(NOW),
        st.none() | WORK, st.sampled_from([(), (further,)]), folder=FOLDERS,
        groups=st.lists(NAMES, unique=True, max_size=3).map(tuple), menu=st.sampled_from(["", "", "a", "b", "none"]),
        loader=st.sampled_from(["", "own.efi"]), arguments=st.sampled_from(["", "d"]),
        labels=st.sampled_from([(), (("memory_mb", "16"),)]), learned=st.sampled_from([(), (("memory_mb", "8"),)]),
        runs=st.lists(RUN, max_size=3, unique_by=lambda run: run.assignment).map(tuple),
    )  # fmt: skip


DEVICES = st.lists(st.sampled_from(MACS), unique=True, max_size=5).flatmap(
    lambda macs: st.tuples(*map(devices, macs)) if macs else st.just(())
)
SNAPSHOTS = st.builds(Snapshot.of, DEVICES, OBJECTS, ZONES)
LIVE = st.sampled_from([{}, {"arch": "BIOS", "memory_mb": "8"}, {"state": "known", "group": "a"}])


def queries(snapshot: Snapshot, mac: str) -> list[Query]:
    """What a device, by all its addresses, may ask with."""
    return [Query(mac, snapshot.device(mac), labels) for labels in ({}, {"arch": "BIOS", "memory_mb": "8"})]
