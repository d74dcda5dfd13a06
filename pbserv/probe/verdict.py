"""What a firmware would do with the answers of a wire, by its client model. Pure, but for the questions it asks on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.probe.ask import Answers
from pbserv.probe.firmware import firmware_of
from pbserv.probe.offer import Offer
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import MODELS, Ask, Boot, Choice, Fails, Heard, Identity, LocalDisk, Model, Sent
from pbserv.proxydhcp.models.message import write
from pbserv.proxydhcp.packet import dotted
from pbserv.types import MacAddress

_MOST_QUESTIONS: Final = 8
_WORDS: Final = {Boot: "boots", LocalDisk: "local", Fails: "fails", Ask: "unknown"}

AskServer = Callable[[Sent], Sequence[Offer]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to a boot server and its answers."""

    server: str
    port: int
    source_port: int
    why: str
    answers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How it would end. ``word``: boots, local (goes on with its boot order), fails, or unknown."""

    word: str
    text: str
    code: str = ""
    file: str = ""
    server: str = ""
    asked: tuple[Asked, ...] = ()

    @property
    def boots(self) -> bool:
        return self.word == "boots"


def verdict(answers: Answers, ask_server: AskServer | None) -> Verdict:
    """Let the model choose, and ask boot servers for it; None for ``ask_server``: it may not ask."""
    packet = dhcp.decode(answers.question)
    firmware = firmware_of(answers.kind)
    uuid = packet.options.get(dhcp.CLIENT_UUID, bytes(17))[1:]
    who = Identity(answers.mac, uuid, firmware.arch, firmware.undi, packet.xid)
    choice = _chosen(MODELS[firmware.model], answers.offers, who)
    asked: list[Asked] = []
    while isinstance(choice, Ask) and len(asked) < _MOST_QUESTIONS:
        sent = choice.sent
        if hindered := _hindered(choice, answers, ask_server is not None):
            return Verdict(
                "unknown", f"it would ask {sent.destination}:{sent.port}, but {hindered}", asked=tuple(asked)
            )
        replies = tuple(ask_server(sent)) if ask_server else ()
        asked.append(Asked(sent.destination, sent.port, sent.source_port, choice.why, replies))
        choice = choice.after([_heard(offer) for offer in replies])
    return dataclasses.replace(_verdict(choice, answers), asked=tuple(asked))


def _chosen(model: Model, offers: Sequence[Offer], who: Identity) -> Choice:
    """By the answers to its first DISCOVER; by the late ones too when it then has to send another."""
    timely = [_heard(offer) for offer in offers if offer.seconds <= model.waits_s[0]]
    choice = model.choose(timely, who)
    if isinstance(choice, Fails) and choice.again and len(timely) < len(offers):
        return model.choose([_heard(offer) for offer in offers], who)
    return choice


def _hindered(choice: Ask, answers: Answers, allowed: bool) -> str:
    if choice.sent.port == 67 or choice.sent.destination.startswith(("255.", "224.")):
        # A DHCP server would take such a REQUEST for a renewal of this host's address.
        return "a probe broadcasts no REQUEST: boot with the device itself to see more"
    if not allowed:
        return "--no-boot-server forbids it"
    return "" if answers.address else f"{answers.interface} has no IPv4 address to ask from"


def _heard(offer: Offer) -> Heard:
    return Heard(offer.packet, offer.source, offer.source_port, offer.port, offer.seconds, len(offer.data))


def _verdict(choice: Choice, answers: Answers) -> Verdict:
    word = _WORDS[type(choice)]
    if isinstance(choice, Boot):
        text = f"would boot {choice.file} from {choice.server} ({choice.protocol}), because {choice.why}"
        return Verdict(word, text, file=choice.file, server=choice.server)
    if isinstance(choice, LocalDisk):
        return Verdict(word, f"would go on with its boot order: {choice.why}", choice.code)
    if isinstance(choice, Fails):
        why = choice.why if answers.offers else "nobody answered"
        shown = f" ({choice.code})" if choice.code else ""
        return Verdict(word, f"would not boot: {why}{shown}", choice.code)
    return Verdict(word, "asks one boot server after another")


def server_question(answers: Answers, offer: Offer) -> Sent:
    """The question to port 4011 of an offer's server, also where the model would not ask it.

    EDK2 sorts the options by number and asks from port 4011; the others ask from 68.
    """
    packet = dhcp.decode(answers.question)
    uefi = firmware_of(answers.kind).model == "edk2"
    options = {**packet.options, dhcp.MESSAGE_TYPE: bytes((dhcp.REQUEST,))}
    listed = sorted(options.items()) if uefi else list(options.items())
    data = write(listed, mac=MacAddress(packet.chaddr[:6]), xid=packet.xid ^ 0x55AA55AA, ciaddr=answers.address)
    server = dotted(offer.packet.siaddr) if any(offer.packet.siaddr) and uefi else offer.server
    return Sent(data, answers.address, 4011 if uefi else 68, server, 4011)
