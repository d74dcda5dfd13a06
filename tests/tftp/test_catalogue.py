from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.tftp.catalogue import Catalogue, MadeFile, Refusal, Target
from pbserv.tftp.homes import Home, home_of, without_dots
from pbserv.tftp.mapfile import parse
from pbserv.tftp.packet import Opcode, Request
from pbserv.tftp.paths import Directory

MAC = "52:54:00:AB:cd:01"


class Shelf:
    """A directory, its catalogue, and the files that another service would make."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[str, bytes] = {}
        self.macs_asked = 0
        self.catalogues: list[Catalogue] = []
        self.set_up()

    def set_up(self, rules: str | None = None, client_directories: str = "none") -> None:
        rewrite = parse(rules.encode(), "m") if rules is not None else None
        aliases = {"nvlnbp.sys": "undionly.kpxe"}
        self.catalogue = Catalogue(
            Directory(self.root), aliases, self, rewrite=rewrite, client_directories=client_directories
        )
        self.catalogues.append(self.catalogue)

    def path_of(self, name: str, peer: str) -> str:
        return name

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        return self.made.get(name)

    def mac(self) -> str | None:
        self.macs_asked += 1
        return MAC

    def put(self, name: str, text: str = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or name)

    def read(self, name: str | bytes, peer: str = "10.0.0.7", mac: Callable[[], str | None] | None = None) -> str:
        """The file's text, which is its own path unless a test says otherwise; or the code and text of the refusal."""
        request = Request(Opcode.RRQ, name if isinstance(name, bytes) else name.encode(), "octet")
        try:
            found = self.catalogue.find(request, peer, "10.0.0.1", mac or self.mac)
        except Refusal as refusal:
            return f"{refusal.code} {refusal.text}"
        if isinstance(found, MadeFile):
            return found.data.decode()
        with open(found.fd) as file:
            return file.read()

    def place(self, name: str | bytes, peer: str = "10.0.0.7", mac: Callable[[], str | None] | None = None) -> str:
        """Where an upload goes, proven by writing there; or the refusal."""
        request = Request(Opcode.WRQ, name if isinstance(name, bytes) else name.encode(), "octet")
        try:
            target: Target = self.catalogue.target(request, peer, "10.0.0.1", mac or self.mac)
        except Refusal as refusal:
            return f"{refusal.code} {refusal.text}"
        try:
            folder = Path(os.readlink(f"/proc/self/fd/{target.folder_fd}"))
            probe = os.open(b"probe", os.O_CREAT | os.O_WRONLY, dir_fd=target.folder_fd)
            os.close(probe)
            os.unlink(b"probe", dir_fd=target.folder_fd)
        finally:
            os.close(target.folder_fd)
        assert (folder / os.fsdecode(target.name)) == self.root.resolve() / os.fsdecode(target.shown)
        return os.fsdecode(target.shown)


NOT_FOUND = "1 file not found"
OUTSIDE = "2 outside of the directory"
NO_FOLDER = "1 directory not found"


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    root = tmp_path / "tftp"
    root.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    made = Shelf(root)
    yield made
    for catalogue in made.catalogues:
        catalogue.close()
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"


# reads


def test_order_of_the_places(shelf: Shelf) -> None:
    shelf.made = {"NVLNBP.SYS": b"made"}
    assert shelf.read("NVLNBP.SYS") == "made"
    shelf.put("undionly.kpxe")
    assert shelf.read("NVLNBP.SYS") == "undionly.kpxe"
    shelf.put("nvlnbp.sys")
    assert shelf.read("NVLNBP.SYS") == "nvlnbp.sys"
    shelf.put("NVLNBP.SYS")
    assert shelf.read("NVLNBP.SYS") == "NVLNBP.SYS"


def test_the_name_as_written_wins_over_a_corrected_one(shelf: Shelf) -> None:
    shelf.put("a/b", "corrected")
    assert shelf.read("a\\b") == "corrected"
    shelf.put("a\\b", "as written")
    assert shelf.read("a\\b") == "as written"


def test_what_is_not_there_or_outside(shelf: Shelf) -> None:
    (shelf.root.parent / "secret").write_text("secret")
    (shelf.root / "d").mkdir()
    assert shelf.read("none") == NOT_FOUND
    assert shelf.read("d") == NOT_FOUND
    assert shelf.read("../secret") == OUTSIDE
    assert shelf.read("d/../../secret") == OUTSIDE
    assert shelf.read("x" * 300) == "4 file name too long"


# the map file


def test_rules_come_first_and_corrections_afterwards(shelf: Shelf) -> None:
    shelf.put("Boot/x")
    shelf.put("a/x")
    shelf.set_up("r ^a Boot\nr x$ X\nr ^etc ../etc\na \\.pvt$ private")
    assert shelf.read("a/x") == "Boot/x"  # Boot/X is there in another case
    assert shelf.read("boot\\x") == "Boot/x"
    assert shelf.read("k.pvt") == "2 private"
    assert shelf.read("etc/passwd") == OUTSIDE


def test_a_rule_can_ask_whether_there_is_such_a_file(shelf: Shelf) -> None:
    shelf.set_up("rE ^ boxes/\\x/\nr ^ boxes/default/")
    shelf.put("boxes/default/x")
    assert shelf.read("x") == "boxes/default/x"
    shelf.put("boxes/0A000007/x")
    assert shelf.read("x") == "boxes/0A000007/x"
    shelf.set_up("rE ^ ../\nrE ^ \xff\\x")
    (shelf.root.parent / "secret").write_text("secret")
    assert shelf.read("secret") == NOT_FOUND


def test_a_rule_can_ask_whether_a_file_can_be_written(shelf: Shelf) -> None:
    shelf.set_up("rPE ^ in/\\i/\nrP ^ in/")
    (shelf.root / "in").mkdir()
    assert shelf.place("x") == "in/x"
    (shelf.root / "in" / "10.0.0.7").mkdir()
    assert shelf.place("x") == "in/10.0.0.7/x"


# directories of clients


def test_a_client_gets_its_own_file_first(shelf: Shelf) -> None:
    for name in ("x", "10.0.0.7/x", "shared", "10.0.0.7/SHARED"):
        shelf.put(name)
    shelf.set_up(client_directories="ip")
    assert shelf.read("x") == "10.0.0.7/x"
    assert shelf.read("/x") == "10.0.0.7/x"
    assert shelf.read("X") == "10.0.0.7/x"
    assert shelf.read("shared") == "10.0.0.7/SHARED"
    assert shelf.read("x", peer="10.0.0.8") == "x"
    assert shelf.macs_asked == 0


def test_directories_by_mac(shelf: Shelf) -> None:
    shelf.put("x")
    shelf.set_up(client_directories="mac")
    assert shelf.read("x") == "x"
    shelf.put("52-54-00-AB-CD-01/x")
    assert shelf.read("x") == "52-54-00-AB-CD-01/x"
    shelf.put("52-54-00-ab-cd-01/x")
    assert shelf.read("x") == "52-54-00-ab-cd-01/x"
    assert shelf.macs_asked == 3
    assert shelf.read("x", mac=lambda: None) == "x"  # behind a router


def test_directories_by_ipv6_address(shelf: Shelf) -> None:
    shelf.put("2001-db8--7/x")
    shelf.put("fe80--1/x")
    shelf.put("10.0.0.7/x")
    shelf.set_up(client_directories="ip")
    assert shelf.read("x", peer="2001:db8::7") == "2001-db8--7/x"
    assert shelf.read("x", peer="fe80::1%eth0") == "fe80--1/x"
    assert shelf.read("x", peer="::ffff:10.0.0.7") == "10.0.0.7/x"


@pytest.mark.parametrize(
    "name",
    [
        "10.0.0.8/x", "/10.0.0.8/x", "\\10.0.0.8\\x", "./10.0.0.8/x", "a/../10.0.0.8/x", "10.0.0.7/../10.0.0.8/x",
        "deep/../10.0.0.8/x", "2001-db8--8/x", "2001-DB8--8/x", "2001-db8-0--8/x",
    ],
)  # fmt: skip
def test_no_client_reaches_the_directory_of_another(shelf: Shelf, name: str) -> None:
    for folder in ("10.0.0.8", "2001-db8--8", "elsewhere/f", "a"):
        shelf.put(f"{folder}/x", "other's")
    (shelf.root / "deep").symlink_to("/elsewhere/f")  # the kernel's .. is not that of the letters
    shelf.set_up(client_directories="ip")
    assert shelf.read(name) == NOT_FOUND
    assert shelf.place(name) == NO_FOLDER
    shelf.set_up(f"r .* {name.replace(chr(92), chr(92) * 2)}", client_directories="ip")
    assert shelf.read("anything") == NOT_FOUND


def test_a_client_may_name_its_own_directory(shelf: Shelf) -> None:
    shelf.put("10.0.0.7/x")
    shelf.set_up(client_directories="ip")
    assert shelf.read("10.0.0.7/x") == "10.0.0.7/x"
    assert shelf.place("10.0.0.7/x") == "10.0.0.7/x"


def test_only_directories_of_the_kind_that_is_set_are_hidden(shelf: Shelf) -> None:
    shelf.put("10.0.0.8/x")
    shelf.put("52-54-00-00-00-02/x")
    assert shelf.read("10.0.0.8/x") == "10.0.0.8/x"
    shelf.set_up(client_directories="mac")
    assert shelf.read("10.0.0.8/x") == "10.0.0.8/x"
    for mac in (shelf.mac, lambda: None):
        assert shelf.read("52-54-00-00-00-02/x", mac=mac) == NOT_FOUND
    shelf.set_up(client_directories="ip")
    assert shelf.read("52-54-00-00-00-02/x") == "52-54-00-00-00-02/x"


PART = st.sampled_from([b"10.0.0.8", b"10.0.0.7", b"..", b".", b"", b"a", b"A", b"X", b"x", b"\\", b"\xff", b"..\\"])


@given(st.lists(PART, max_size=7))
def test_no_spelling_leads_to_another_client(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    root = _tree(tmp_path_factory)
    catalogue = Catalogue(Directory(root), {}, _Nothing(), client_directories="ip")
    try:
        request = Request(Opcode.RRQ, b"/".join(parts) or b"/", "octet")
        found = catalogue.find(request, "10.0.0.7", "10.0.0.1", lambda: None)
    except Refusal:
        return
    finally:
        catalogue.close()
    assert not isinstance(found, MadeFile)
    with open(found.fd) as file:
        assert file.read() == "ours"


class _Nothing:
    def path_of(self, name: str, peer: str) -> str:
        return name

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        return None


def _tree(factory: pytest.TempPathFactory) -> Path:
    root = factory.getbasetemp() / "spellings"
    if not root.exists():
        for folder, text in (("10.0.0.8/a", "theirs"), ("10.0.0.7/a", "ours"), ("a", "ours")):
            for name in ("x", "../x"):
                path = (root / folder / name).resolve()
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    path.write_text(text)
        (root / "x").write_text("ours")
    return root


def test_home_facts() -> None:
    assert home_of("none", "10.0.0.7", lambda: MAC) == Home("none", None)
    assert home_of("mac", "10.0.0.7", lambda: MAC) == Home("mac", b"52-54-00-ab-cd-01")
    assert not Home("none", None).hides(b"10.0.0.8/x")
    assert Home("ip", b"10.0.0.7").hides(b"10.0.0.8")
    assert not Home("ip", b"10.0.0.7").hides(b"10.0.0.08/x")  # no address
    assert without_dots(b"a/b/../../../c") == b"c"


# writes


def test_where_an_upload_goes(shelf: Shelf) -> None:
    (shelf.root / "Reports").mkdir()
    shelf.put("Reports/Old.txt")
    assert shelf.place("new") == "new"
    assert shelf.place("/new") == "new"
    assert shelf.place("Reports/new") == "Reports/new"
    assert shelf.place("reports\\new") == "Reports/new"  # folder in another case
    assert shelf.place("REPORTS/OLD.TXT") == "Reports/Old.txt"  # the same file
    assert shelf.place(b"new\xff\r\n") == "new"
    assert shelf.place(f"{shelf.root}/new") == "new"  # set up for a server without a private root
    assert shelf.place("Reports/../new") == "new"


def test_where_no_upload_goes(shelf: Shelf) -> None:
    shelf.put("file")
    assert shelf.place("none/x") == NO_FOLDER
    assert shelf.place("file/x") == NO_FOLDER
    assert shelf.place("../x") == OUTSIDE
    assert shelf.place(".x.ab12.part") == "2 name is kept for uploads that are under way"
    assert shelf.place("x" * 256) == "4 file name too long"
    for nothing in ("/", ".", "file/..", b"\xff"):
        assert shelf.place(nothing) == NO_FOLDER
    (shelf.root / "out").symlink_to("/usr")
    assert shelf.place("out/x") == NO_FOLDER


def test_a_link_is_not_followed_out_of_the_directory(shelf: Shelf) -> None:
    (shelf.root / "up").symlink_to("..")
    request = Request(Opcode.WRQ, b"up/x", "octet")
    target = shelf.catalogue.target(request, "10.0.0.7", "10.0.0.1", shelf.mac)
    assert os.path.samestat(os.fstat(target.folder_fd), shelf.root.stat())
    os.close(target.folder_fd)


def test_uploads_of_clients_with_a_directory(shelf: Shelf) -> None:
    shelf.put("x")
    shelf.put("Reports/x")
    shelf.put("10.0.0.7/log/old")
    shelf.set_up(client_directories="ip")
    assert shelf.place("x") == "10.0.0.7/x"  # never over a file of all
    assert shelf.place("LOG/OLD") == "10.0.0.7/log/old"
    assert shelf.place("Reports/y") == "Reports/y"  # it has no such folder itself
    assert shelf.place("x", peer="10.0.0.8") == "x"
    assert shelf.place("10.0.0.7/x", peer="10.0.0.8") == NO_FOLDER


def test_rules_for_uploads(shelf: Shelf) -> None:
    (shelf.root / "in").mkdir()
    shelf.set_up("rP ^ in/\nrG ^ out/\naP \\.efi$ no\\ loaders")
    assert shelf.place("x") == "in/x"
    assert shelf.place("x.efi") == "2 no loaders"


def test_files_outside_of_the_directory_have_their_places(shelf: Shelf, tmp_path: Path) -> None:
    kernel = tmp_path / "elsewhere-vmlinuz"
    placed = {"client/vmlinuz": kernel}
    catalogue = Catalogue(Directory(shelf.root), {}, shelf, placed=placed)

    def read(name: bytes) -> bytes:
        found = catalogue.find(Request(Opcode.RRQ, name, "octet"), "10.0.0.7", "10.0.0.1", shelf.mac)
        assert not isinstance(found, MadeFile)
        with os.fdopen(found.fd, "rb") as stream:
            return stream.read()

    with pytest.raises(Refusal, match="file not found"):  # it was not built yet
        read(b"client/vmlinuz")
    kernel.write_bytes(b"kernel")
    assert read(b"client/vmlinuz") == read(b"/client/vmlinuz") == b"kernel"
    for name in (b"client/../elsewhere-vmlinuz", b"client/other", b"elsewhere-vmlinuz"):
        with pytest.raises(Refusal):
            read(name)
    shelf.put("client/vmlinuz", "their own")
    assert read(b"client/vmlinuz") == b"their own"
    catalogue.close()
