"""`pbserv device identity` and `pbserv pool`: verbs to exit codes."""

from __future__ import annotations

from typing import Annotated

import typer

from pbserv.cli import devices
from pbserv.cli.shared import AsJson, Mac, group

app = group("Pools: names and addresses for devices that have none, given when they are imaged.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the pool")]
Domain = Annotated[str | None, typer.Option(metavar="NAME", help="DNS domain, or that of Windows.")]
Workgroup = Annotated[str | None, typer.Option(metavar="NAME", help="Windows work group, 15 characters.")]
Gateway = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Default gateway, in the same network.")]
Dns = Annotated[
    list[str] | None, typer.Option("--dns", metavar="ADDRESS", help="Name server; may be repeated, '' for none.")
]
Suffixes = Annotated[
    list[str] | None,
    typer.Option("--suffix", metavar="NAME", help="Domain in which names are looked up; may be repeated."),
]


@devices.app.command("identity")
def device_identity(
    context: typer.Context,
    mac: Mac,
    hostname: Annotated[str | None, typer.Option(metavar="NAME", help="Without its domain.")] = None,
    domain: Domain = None,
    workgroup: Workgroup = None,
    dhcp: Annotated[bool, typer.Option("--dhcp", help="Addresses come from DHCP; its own are taken away.")] = False,
    address: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Fixed IPv4 address; needs --netmask.")] = None,
    netmask: Annotated[str | None, typer.Option(metavar="MASK", help="255.255.255.0, or its bits: 24.")] = None,
    gateway: Gateway = None,
    dns: Dns = None,
    suffixes: Suffixes = None,
    workstation: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Name of its workstation object, or its number in an inventory.")
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Give it now what pools would give it when it is imaged.")
    ] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Take all away; its name and address are free again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show or change image-safe data: what belongs to the device, not to the image that is written to it.

    It is laid over the restored system, which confirms that it has applied it. What is not said here comes from pools
    (pbserv pool), or stays as the image has it. '' takes a value away.

    \b
    Examples:
      pbserv device identity 52:54:00:12:34:56
      pbserv device identity 52:54:00:12:34:56 --hostname lab1-07 --workgroup LAB --dhcp
      pbserv device identity 52:54:00:12:34:56 --address 10.1.0.7 --netmask 24 --gateway 10.1.0.1 --dns 10.1.0.2
    """
    from pbserv.commands import identity

    given = {
        "hostname": hostname, "domain": domain, "workgroup": workgroup, "dhcp": True if dhcp else None,
        "address": address, "netmask": netmask, "gateway": gateway, "dns": dns, "suffixes": suffixes,
        "workstation": workstation,
    }  # fmt: skip
    identity.change(context.obj, mac, given, clear=clear, fill=fill, as_json=as_json)


@app.command("list")
def pool_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List pools, and how much of each is given."""
    from pbserv.commands import identity

    identity.pools(context.obj, as_json)


@app.command("show")
def pool_show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a pool, what it gave, and to whom."""
    from pbserv.commands import identity

    identity.pool_show(context.obj, name, as_json)


@app.command("set")
def pool_set(
    context: typer.Context,
    name: Name,
    pattern: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Of names: lab{n}, or lab{n:02} for two digits; '' for no names.")
    ] = None,
    first: Annotated[int | None, typer.Option(metavar="N", help="The first number; usually 1.")] = None,
    last: Annotated[int | None, typer.Option(metavar="N", help="The last number.")] = None,
    network: Annotated[
        str | None, typer.Option(metavar="NETWORK", help="Of addresses: 10.1.0.0/24; '' for no addresses.")
    ] = None,
    addresses: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST-LAST", help="Those that are given: 10.1.0.10-10.1.0.99; '' for all but the gateway."
        ),
    ] = None,
    gateway: Gateway = None,
    dhcp: Annotated[
        bool | None, typer.Option("--dhcp/--no-dhcp", help="Its devices get their addresses from DHCP.")
    ] = None,
    domain: Domain = None,
    workgroup: Workgroup = None,
    dns: Dns = None,
    suffixes: Suffixes = None,
    folder: Annotated[
        str | None, typer.Option(metavar="PATH", help="Serves devices in this folder and below; / is the zone.")
    ] = None,
    group_name: Annotated[
        str | None, typer.Option("--group", metavar="NAME", help="Serves devices of this group alone; '' for all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a pool, or change it; what it gave stays given.

    Of pools that serve a device the nearest is asked first: one of a group before one of a folder, a deep folder before
    the one above it. A value is given once; it is free again when its device is retired or forgotten.

    \b
    Examples:
      pbserv pool set lab1 --pattern "lab1-{n:02}" --last 30 --dhcp --domain lab.example --folder /labs/1
      pbserv pool set tills --pattern "till{n}" --last 400 --network 10.8.0.0/22 --gateway 10.8.0.1 --group tills
    """
    from pbserv.commands import identity

    given = {
        "pattern": pattern, "first": first, "last": last, "network": network, "addresses": addresses,
        "gateway": gateway, "dhcp": dhcp, "domain": domain, "workgroup": workgroup, "dns": dns, "suffixes": suffixes,
        "folder": folder, "group": group_name,
    }  # fmt: skip
    identity.pool_set(context.obj, name, given, as_json)


@app.command("delete")
def pool_delete(
    context: typer.Context,
    name: Name,
    release: Annotated[
        bool, typer.Option("--release", help="Also when devices have values of it: these are taken from them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a pool that no device has values of."""
    from pbserv.commands import identity

    identity.pool_delete(context.obj, name, release, as_json)
