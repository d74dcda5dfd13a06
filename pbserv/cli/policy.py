"""`pbserv assign`, `rule`, `policy`, `explain` and `apply`: verbs to exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pbserv.cli.shared import (
    Arguments,
    AsJson,
    ForDevice,
    ForFolder,
    ForGroup,
    FormName,
    ForZone,
    PolicyPath,
    Schedule,
    group,
)

assign_app = group("Assignments: a bundle for a device, a group, a folder or all devices.")
rule_app = group("Rules: a bundle for every device whose labels fulfil a condition; the first one wins.")
app = group("The whole policy as a file.")

Assignment = Annotated[str, typer.Argument(metavar="NAME", help="name of the assignment")]
Rule = Annotated[str, typer.Argument(metavar="NAME", help="name of the rule")]
Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="name of the bundle")]
OtherBundle = Annotated[str | None, typer.Option("--bundle", metavar="NAME", help="Name of the bundle.")]
Priority = Annotated[int | None, typer.Option(metavar="N", help="The highest of one place goes first; usually 0.")]
Enabled = Annotated[bool | None, typer.Option("--enable/--disable", help="A disabled one is passed over.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="As if it were so; may be repeated.")
]


def add_verbs(root: typer.Typer) -> None:
    """The two that stand without a group."""
    root.command()(explain)
    root.command()(apply)


@assign_app.command("list")
def assign_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List assignments."""
    from pbserv.commands import objects

    columns = {
        "Name": lambda each: each["name"], "Bundle": lambda each: each["bundle"], "For": objects.place_text,
        "Schedule": lambda each: each["schedule"], "Priority": lambda each: each["priority"],
        "Enabled": lambda each: "yes" if each["enabled"] else "no",
    }  # fmt: skip
    objects.listed(context.obj, "assignment", columns, as_json)


@assign_app.command("show")
def assign_show(context: typer.Context, name: Assignment, as_json: AsJson = False) -> None:
    """Show an assignment."""
    from pbserv.commands import objects

    objects.show(context.obj, "assignment", name, as_json)


@assign_app.command("add")
def assign_add(
    context: typer.Context,
    bundle: Bundle,
    device: ForDevice = None,
    group: ForGroup = None,
    folder: ForFolder = None,
    zone: ForZone = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: of bundle and place, such as rescue for lab 1.")
    ] = None,
    schedule: Schedule = None,
    priority: Priority = None,
    arguments: Arguments = None,
    as_json: AsJson = False,
) -> None:
    """Assign a bundle to a device, a group, a folder or all devices.

    One that changes the machine (an image, an installation) is done once by each device; another is what devices boot
    from now on.

    \b
    Examples:
      pbserv assign add rescue --device 52:54:00:12:34:56
      pbserv assign add classroom --group "lab 1" --schedule "cron 0 2 * * sun"
      pbserv assign add rescue --folder /labs --schedule "window mon-fri 22:00-06:00"
    """
    from pbserv.commands import objects

    fields = {"schedule": schedule, "priority": priority, "arguments": arguments}
    objects.assign(context.obj, bundle, objects.place_of(device, group, folder, zone), name, fields, as_json)


@assign_app.command("set")
def assign_set(
    context: typer.Context,
    name: Assignment,
    bundle: OtherBundle = None,
    device: ForDevice = None,
    group: ForGroup = None,
    folder: ForFolder = None,
    zone: ForZone = False,
    schedule: Schedule = None,
    priority: Priority = None,
    arguments: Arguments = None,
    enabled: Enabled = None,
    as_json: AsJson = False,
) -> None:
    """Change the fields of an assignment that are named.

    \b
    Example:
      pbserv assign set "rescue for lab 1" --disable
    """
    from pbserv.commands import objects

    named = any((device, group, folder, zone))
    place = objects.place_of(device, group, folder, zone) if named else {}
    fields = {
        **place, "bundle": bundle, "schedule": schedule, "priority": priority, "arguments": arguments,
        "enabled": enabled,
    }  # fmt: skip
    objects.put(context.obj, "assignment", name, fields, as_json)


@assign_app.command("delete")
def assign_delete(context: typer.Context, name: Assignment, as_json: AsJson = False) -> None:
    """Delete an assignment; work that it led to already stays."""
    from pbserv.commands import objects

    objects.delete(context.obj, "assignment", name, as_json)


@rule_app.command("list")
def rule_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List rules in the order in which they are asked."""
    from pbserv.commands import objects

    columns = {
        "Name": lambda each: each["name"], "Position": lambda each: each["position"], "When": lambda each: each["when"],
        "Bundle": lambda each: each["bundle"], "Schedule": lambda each: each["schedule"],
        "Enabled": lambda each: "yes" if each["enabled"] else "no",
        "Unknown": lambda each: "yes" if each["unknown"] else "no",
    }  # fmt: skip
    objects.listed(context.obj, "rule", columns, as_json, order=lambda each: (each["position"], each["name"]))


@rule_app.command("show")
def rule_show(context: typer.Context, name: Rule, as_json: AsJson = False) -> None:
    """Show a rule."""
    from pbserv.commands import objects

    objects.show(context.obj, "rule", name, as_json)


@rule_app.command("set")
def rule_set(
    context: typer.Context,
    name: Rule,
    when: Annotated[str | None, typer.Option(metavar="CONDITION", help="See: pbserv rule labels")] = None,
    bundle: OtherBundle = None,
    position: Annotated[int | None, typer.Option(metavar="N", help="The lowest is asked first; usually 100.")] = None,
    schedule: Schedule = None,
    arguments: Arguments = None,
    enabled: Enabled = None,
    unknown: Annotated[
        bool | None, typer.Option("--unknown/--known", help="Also for devices that nobody has accepted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a rule, or change it.

    A condition compares labels with texts and numbers: == != < <= > >=, in and not in ["a", "b"], and, or, not,
    like(label, "GLOB*"), has(label), within(label, "10.0.0.0/8").

    \b
    Example:
      pbserv rule set dell --bundle rescue
             --when 'manufacturer == "Dell Inc." and memory_mb >= 8192'
    """
    from pbserv.commands import objects

    fields = {
        "when": when, "bundle": bundle, "position": position, "schedule": schedule, "arguments": arguments,
        "enabled": enabled, "unknown": unknown,
    }  # fmt: skip
    objects.put(context.obj, "rule", name, fields, as_json)


@rule_app.command("delete")
def rule_delete(context: typer.Context, name: Rule, as_json: AsJson = False) -> None:
    """Delete a rule."""
    from pbserv.commands import objects

    objects.delete(context.obj, "rule", name, as_json)


@rule_app.command("test")
def rule_test(
    context: typer.Context,
    condition: Annotated[str, typer.Argument(metavar="CONDITION", help="as in: pbserv rule set --when")],
    labels: Labels = None,
    mac: Annotated[str | None, typer.Option(metavar="MAC", help="Take the labels of this device.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a condition is true: of the labels that are given, or of a device. Exit code: 0 true, 1 not.

    \b
    Example:
      pbserv rule test 'like(product, "OptiPlex*")' --label product="OptiPlex 7010"
    """
    from pbserv.commands import rules

    raise typer.Exit(rules.test(context.obj, condition, labels or [], mac, as_json))


@rule_app.command("labels")
def rule_labels(as_json: AsJson = False) -> None:
    """List the labels that devices have by themselves; others are given with pbserv device set MAC --label."""
    from pbserv.commands import rules

    rules.labels(as_json)


@app.command("validate")
def policy_validate(file: PolicyPath, as_json: AsJson = False) -> None:
    """Say everything that is wrong with a policy file (exit code 1); no server is needed.

    \b
    Example:
      pbserv policy validate policy.toml
    """
    from pbserv.commands import policy

    raise typer.Exit(policy.validate(file, as_json))


@app.command("export")
def policy_export(
    context: typer.Context,
    form: Annotated[FormName, typer.Option("--format", help="What to write.")] = FormName.TOML,
    devices: Annotated[
        bool, typer.Option("--devices", help="The devices and what administrators said of them (image-safe data), too.")
    ] = False,
) -> None:
    """Write the server's policy and its pools to stdout, as apply reads them.

    \b
    Example:
      pbserv policy export > policy.toml
    """
    from pbserv.commands import policy

    policy.export(context.obj, form.value, devices)


def explain(
    context: typer.Context,
    mac: Annotated[str | None, typer.Option(metavar="MAC", help="The device, by any of its addresses.")] = None,
    uuid: Annotated[str | None, typer.Option(metavar="UUID", help="Its SMBIOS UUID.")] = None,
    arch: Annotated[
        str | None,
        typer.Option(metavar="ARCH", help="bios, ia32, x64, arm64, http-x64, pi, ... or the number of DHCP option 93."),
    ] = None,
    labels: Labels = None,
    file: Annotated[
        Path | None, typer.Option(metavar="POLICY", help="Decide by this policy file; no server is needed.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="With --file: 2026-12-24 18:00 instead of now; of this host's time zone."),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="ANSWER",
            help="silent, local, loader, boot, boot:BUNDLE, menu or menu:NAME; exit code 1 when it is another one.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a device would get now, and why.

    It shows every step of the decision, with those that lost, and changes nothing.

    \b
    Examples:
      pbserv explain --mac 52:54:00:12:34:56
      pbserv explain --mac 52:54:00:12:34:56 --arch bios --label manufacturer=LENOVO
      pbserv explain --file policy.toml --mac 52:54:00:12:34:56 --at "2026-12-24 18:00" --expect boot:rescue
    """
    from pbserv.commands import explain as command

    asked = command.Asked(mac, uuid, arch, labels or [], at)
    raise typer.Exit(command.explain(context.obj, asked, file, expect, as_json))


def apply(
    context: typer.Context,
    file: PolicyPath,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what the file does not have; devices are never deleted.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the server's policy what a file says.

    It shows what would change, asks on a terminal, and changes all or nothing. Elsewhere it does not ask, but deletes
    nothing without --yes.

    \b
    Examples:
      pbserv apply policy.toml --dry-run
      pbserv apply policy.toml --prune --yes
    """
    from pbserv.commands import policy

    raise typer.Exit(policy.apply(context.obj, file, prune, dry_run, yes, as_json))
