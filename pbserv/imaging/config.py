"""pbserv.conf: the imaging service (table D-10 of the manual) and what the whole process shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import SecretStr

from pbserv.conf.kinds import Address, Choice, Directory, Integer, Library, Names, User, YesNo
from pbserv.conf.model import ConfFile, ConfModel, Key
from pbserv.conf.places import Directories, StorePlace, Stores
from pbserv.conf.remotes import Remotes, RemoteStore
from pbserv.conf.servers import Database

SERVICES = ("imaging", "proxydhcp", "tftp", "policy")


class PbservConf(ConfModel):
    """Settings of the imaging service and of the process."""

    title: ClassVar[str] = "Imaging service, and what all services share"
    log_name: ClassVar[str] = "pbserv.log"

    enable_logging: Annotated[
        bool,
        Key(
            "EnableLogging",
            YesNo(),
            "Whether the imaging service writes a log file. With NO, results stay in the registry and critical events"
            " still reach the standard error output.",
        ),
    ] = True
    ip_address: Annotated[
        str | None,
        Key(
            "IPAddress",
            Address(),
            "The address that imaging binds and that its URLs carry. It may be a cluster address that this host does"
            " not have yet.",
            unset="found out for each client",
        ),
    ] = None
    library_name: Annotated[
        str,
        Key("LIBRARY_NAME", Library(), "The backend of the imaging service.", unset="the built-in backend"),
    ] = ""
    log_file_size_mb: Annotated[
        int,
        Key(
            "PrebootServiceLogFileSize",
            Integer(1, 1_000_000),
            "The size at which the imaging service's log file is deleted and begun anew.",
            unit="MB",
        ),
    ] = 15

    state_directory: Annotated[
        Path,
        Key(
            "StateDirectory",
            Directory(),
            "Where registry, images, imaging client, logs and run-time files are kept. Stop the server before you"
            " change it.",
            extension=True,
        ),
    ] = Path("/var/lib/pbserv")
    registry_url: Annotated[
        SecretStr | None,
        Key(
            "RegistryURL",
            Database(),
            "The PostgreSQL database that holds the registry. It must exist; the tables are made at the start. Others"
            " must not be able to read this file when there is a password in it.",
            extension=True,
            unset="the SQLite file registry.db in StateDirectory",
        ),
    ] = None
    services: Annotated[
        tuple[str, ...],
        Key("Services", Names(SERVICES), "The services that start together when none is named.", extension=True),
    ] = ("imaging", "tftp", "policy")
    http_address: Annotated[
        str | None,
        Key(
            "HTTPAddress",
            Address(),
            "The address that the HTTP server binds, where that is not IPAddress; URLs are not changed by it.",
            extension=True,
            unset="IPAddress, else every address of this host",
        ),
    ] = None
    http_port: Annotated[
        int,
        Key("HTTPPort", Integer(1, 65_535), "The port of the HTTP server.", extension=True),
    ] = 8067
    https_port: Annotated[
        int | None,
        Key(
            "HTTPSPort",
            Integer(1, 65_535),
            "The port where API and console are served over TLS (1.2 or newer) too. Devices boot over HTTPPort.",
            extension=True,
            unset="no HTTPS",
        ),
    ] = None
    tls_certificate: Annotated[
        Path | None,
        Key(
            "TLSCertificate",
            Directory(),
            "The PEM file with the certificate of the HTTPS server and those that lead to its root. A reload reads it"
            " anew.",
            extension=True,
            unset="one that the server makes for itself, in StateDirectory/tls",
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        Key(
            "TLSKey",
            Directory(),
            "The PEM file with the key of TLSCertificate, without a passphrase, readable by the user of the server.",
            extension=True,
            unset="the key stands in the file of TLSCertificate",
        ),
    ] = None
    require_tls: Annotated[
        bool,
        Key(
            "RequireTLS",
            YesNo(),
            "Whether the API and the console answer plain HTTP from this host alone, so that no token crosses the"
            " network in the clear. Boot files and the imaging client are not affected.",
            extension=True,
        ),
    ] = False
    user: Annotated[
        str,
        Key("User", User(), "The unprivileged user as which the process runs after its start as root.", extension=True),
    ] = "pbserv"
    log_format: Annotated[
        Literal["text", "json"],
        Key("LogFormat", Choice(("text", "json")), "The form of a line in all log files.", extension=True),
    ] = "text"
    journal_days: Annotated[
        int,
        Key(
            "JournalDays",
            Integer(1, 3650),
            "How long the boot sessions of devices are kept.",
            unit="days",
            extension=True,
        ),
    ] = 30
    journal_packets: Annotated[
        int,
        Key(
            "JournalPackets",
            Integer(0, 256),
            "How many DHCP packets of each device are kept for pbserv journal --pcap.",
            extension=True,
        ),
    ] = 32
    allow_overwrite: Annotated[
        bool,
        Key(
            "AllowImageOverwrite",
            YesNo(),
            "Whether a new image may take the place of an existing one of the same name.",
            extension=True,
        ),
    ] = False
    image_stores: Annotated[
        tuple[StorePlace, ...] | None,
        Key(
            "ImageStores",
            Stores(),
            "The directories where images are kept, each with its name and limits: quota (bytes of all versions), floor"
            " (bytes that stay free), keep (versions of an image; older ones are retired), restores and captures"
            " (devices at once). A new image goes to the first one that may take it. Run pbserv install again when"
            " there is a new one.",
            extension=True,
            unset="one store, main, in StateDirectory/images",
        ),
    ] = None
    upload_directories: Annotated[
        tuple[Path, ...],
        Key(
            "UploadDirectories",
            Directories(),
            "Images are stored only in stores at or below these directories: what is uploaded, captured or registered."
            " It does not hold for files that somebody with access to the disk drops into a store's directory, nor for"
            " conversions of images that are there already.",
            extension=True,
            unset="all stores take images",
        ),
    ] = ()
    auto_enable: Annotated[
        bool,
        Key(
            "AutoEnable",
            YesNo(),
            "Whether a new version of an image is served at once. With NO it waits for: pbserv image enable.",
            extension=True,
        ),
    ] = True

    @property
    def registry_place(self) -> Path | str:
        """The registry's SQLite file or the URL of its database, with the password: not for messages."""
        if self.registry_url is None:
            return self.state_directory / "registry.db"
        return self.registry_url.get_secret_value()

    image_compression: Annotated[
        int,
        Key(
            "ImageCompression",
            Integer(1, 19),
            "The level of zstd with which the server compresses the frames of new images.",
            extension=True,
        ),
    ] = 3
    image_workers: Annotated[
        int,
        Key(
            "ImageWorkers",
            Integer(0, 64),
            "The threads that cut, compress and verify images; 0: one for each processor core. Changes with a restart.",
            extension=True,
        ),
    ] = 0
    scrub_rate: Annotated[
        int,
        Key(
            "ScrubRate",
            Integer(1, 100_000),
            "How fast stored images are read to verify them, and files that were dropped into a store to measure them,"
            " where nothing else is asked for.",
            unit="MB/s",
            extension=True,
        ),
    ] = 100
    retired_days: Annotated[
        int,
        Key(
            "RetiredDays",
            Integer(0, 3650),
            "After how long a retired version of an image is purged by itself; 0: never.",
            unit="days",
            extension=True,
        ),
    ] = 0

    hook_directory: Annotated[
        Path | None,
        Key(
            "HookDirectory",
            Directory(),
            "Programs that are told of jobs and images by their names (job-started, job-done, job-failed,"
            " image-committed, image-retired), or asked first (before-job, before-commit). Only root, or the server's"
            " own user, may be able to write them.",
            extension=True,
            unset="nobody is told or asked",
        ),
    ] = None

    remote_stores: Annotated[
        tuple[RemoteStore, ...],
        Key(
            "RemoteStores",
            Remotes(),
            "Stores of other servers, under the names that they have there. Who asks for an image that belongs to one"
            " of them (pbserv image register --owner) is referred to its server; frames that are damaged here are"
            " fetched from servers that have the same image.",
            extension=True,
            unset="nobody is referred",
        ),
    ] = ()
    remote_store_token: Annotated[
        Path | None,
        Key(
            "RemoteStoreToken",
            Directory(),
            "The file with a token of role images that the servers of RemoteStores know. Referrals then bring a ticket"
            " for the one image. Devices are referred with it alone, and nothing is fetched without it.",
            extension=True,
            unset="whoever is referred needs a token of that server",
        ),
    ] = None

    @property
    def stores(self) -> tuple[StorePlace, ...]:
        """The image stores; at least one."""
        return self.image_stores or (StorePlace("main", self.state_directory / "images"),)

    @property
    def outside_stores(self) -> tuple[Path, ...]:
        """Directories of image stores that are not below StateDirectory: root makes them, the unit names them."""
        return tuple(
            place.directory for place in self.stores if not place.directory.is_relative_to(self.state_directory)
        )

    @property
    def log_level(self) -> int:
        """The manual gives this file no level key; its log has every request with its result (section D.11.2)."""
        return 3

    def log_path(self, log_directory: Path) -> Path | None:
        return super().log_path(log_directory) if self.enable_logging else None


FILE = ConfFile(("pbserv", "novell-pbserv"), PbservConf)
