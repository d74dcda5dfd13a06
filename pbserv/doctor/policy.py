"""What the policy leans on: database, the other server that decides, templates, the boot files that it names. Pure."""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterator

from pbserv.doctor.facts import Elsewhere, Facts, Place
from pbserv.doctor.finding import Finding, error, warning
from pbserv.doctor.rights import everybody_reads, user_reads


def database(facts: Facts) -> Iterator[Finding]:
    """RegistryURL: without its database the server does not start, and a running one registers nothing."""
    found = facts.database
    if found is None:
        return
    if found.fault:
        yield error(
            "the database of the registry cannot be used", f"{found.shown}: {found.fault}",
            "see whether PostgreSQL runs there, lets this host in and has the database; RegistryURL in pbserv.conf",
        )  # fmt: skip
    if found.password and everybody_reads(found.conf):
        place = found.conf[-1]
        yield warning(
            "everybody on this host can read the password of the registry's database",
            _mode(place), f"chgrp {facts.rights.user} {place.path} && chmod 0640 {place.path}",
        )  # fmt: skip


def other_server(facts: Facts) -> Iterator[Finding]:
    """PolicyHook and PrebootServer."""
    found = facts.elsewhere
    if found is None or not facts.wants("policy"):
        return
    if found.wrong:
        yield error("the policy service cannot start with these settings", found.wrong, "correct preboot-policy.conf")
        return
    if found.silent:
        yield _silent(found, facts)
    if found.refusal:
        yield error(
            f"{found.key}: {found.server} does not decide for this server", found.refusal,
            "a token of role site, made there with: pbserv token create NAME --role site; PrebootServerToken",
        )  # fmt: skip
    if found.token and not user_reads(found.token, facts.rights):
        place = found.token[-1]
        yield error(
            f"the user {facts.rights.user} may not read the token of PrebootServer", _mode(place),
            f"chgrp {facts.rights.user} {place.path} && chmod 0640 {place.path}",
        )  # fmt: skip


def _silent(found: Elsewhere, facts: Facts) -> Finding:
    remedy = f"see whether it runs, and whether a firewall is between: {found.server}"
    if found.key == "PolicyHook" and facts.settings.policy.hook_failure == "closed":
        what = f"PolicyHook: nobody can be asked at {found.server}, and PolicyHookFailure = closed: no device boots"
        return error(what, found.silent, remedy)
    instead = "this server's own policy counts" if found.key == "PolicyHook" else "what it said last counts"
    return warning(f"{found.key}: nobody can be asked at {found.server}; {instead}", found.silent, remedy)


def templates(facts: Facts) -> Iterator[Finding]:
    """One that is broken keeps the policy service from starting, and a reload from happening."""
    for fault in facts.templates:
        yield error(
            "a template of boot scripts cannot be used: the policy service will not start with it", fault,
            "correct it, or take it out of TemplateDirectory: the shipped one takes its place",
        )  # fmt: skip


def boot_files(facts: Facts) -> Iterator[Finding]:
    """What devices, bundles and loaders name and TFTPDirectory has not; what keys name is told from the files."""
    named: dict[str, list[str]] = defaultdict(list)
    for lacking in facts.lacking:
        if lacking.beside:
            yield error(
                f"{lacking.named}: {lacking.beside} asks for {lacking.name}, which is not beside it: no boot goes on",
                f"there is no {lacking.name} in {facts.settings.tftp.directory}",
                f"pbserv loaders install {lacking.beside.rpartition('/')[2]}, which brings it along",
            )
        else:
            named[lacking.named].append(lacking.name)
    for who, names in named.items():
        yield warning(
            f"{who}: there is no file {', '.join(names)}", f"TFTPDirectory = {facts.settings.tftp.directory}",
            "copy it there; loaders: pbserv loaders install NAME; see: pbserv loaders list",
        )  # fmt: skip


def _mode(place: Place) -> str:
    return f"{place.path}: mode {stat.S_IMODE(place.mode):04o}, owner {place.uid}:{place.gid}"
