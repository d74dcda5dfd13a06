import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.faults import InvalidName
from pbserv.imaging.manifest import (
    MAX_STORED_BYTES,
    DiskFacts,
    Fact,
    Manifest,
    ManifestError,
    ManifestItem,
    check_image_name,
    check_item_name,
    check_new_name,
    parse,
    print_manifest,
    single_file,
)

SHA = "0123456789abcdef" * 4
GOOD = (
    "pbserv-image 1\n"
    "disk 4294967296 512 gpt uefi\n"
    f"item table sfdisk 0 812 {SHA} 812\n"
    f"item p1.vfat partclone.vfat 1 1048576 {SHA} 536870912\n"
    f"item p2.ext4 partclone.ext4 2 734003200 {SHA} 3221225472\n"
)

numbers = st.integers(0, 2**63 - 1)
items = st.builds(
    ManifestItem,
    name=st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(
        lambda name: name not in ("manifest", "facts", "session", "session.new", "-") and not name.endswith(".pbx")
    ),
    kind=st.sampled_from(
        ["sfdisk", "boot", "partclone.ntfs", "partclone.btrfs", "raw", "swap", "file", "tree", "disk"]
    ),
    partition=st.integers(0, 1024),
    stored_bytes=numbers,
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    uncompressed_bytes=numbers,
)
plain_manifests = st.builds(
    Manifest,
    disk=st.builds(
        DiskFacts,
        size_bytes=st.integers(1, 2**63 - 1),
        sector_bytes=st.sampled_from([512, 4096]),
        table=st.sampled_from(["gpt", "dos", "none"]),
        firmware=st.sampled_from(["bios", "uefi"]),
    ),
    items=st.lists(items, min_size=1, max_size=8, unique_by=lambda item: item.name).map(tuple),
)


@st.composite
def _manifests(draw: st.DrawFn) -> Manifest:
    plain = draw(plain_manifests)
    of = st.sampled_from(["", *(item.name for item in plain.items)])
    fact = st.builds(Fact, of, st.from_regex(r"[a-z][a-z0-9_]{0,23}", fullmatch=True), st.text(min_size=1, max_size=30))
    return plain.with_facts(draw(st.lists(fact, max_size=6)))


manifests = _manifests()


def test_a_manifest_is_read():
    manifest = parse(GOOD)
    assert manifest.disk == DiskFacts(4294967296, 512, "gpt", "uefi")
    assert [item.name for item in manifest.items] == ["table", "p1.vfat", "p2.ext4"]
    assert manifest.stored_bytes == 812 + 1048576 + 734003200
    assert manifest.item("p1.vfat") == ManifestItem("p1.vfat", "partclone.vfat", 1, 1048576, SHA, 536870912)
    assert manifest.item("p9") is None
    assert print_manifest(manifest) == GOOD
    assert parse(GOOD.rstrip("\n")) == manifest


@given(manifests)
def test_printing_and_reading_are_inverse(manifest):
    assert parse(print_manifest(manifest)) == manifest


@given(st.text(max_size=300))
def test_any_text_is_a_manifest_or_refused(text):
    try:
        manifest = parse(text)
    except ManifestError:
        return
    assert parse(print_manifest(manifest)) == manifest


@given(st.data())
def test_a_damaged_manifest_is_refused_or_still_canonical(data):
    at = data.draw(st.integers(0, len(GOOD) - 1))
    damaged = GOOD[:at] + data.draw(st.characters()) + GOOD[at + 1 :]
    try:
        manifest = parse(damaged)
    except ManifestError:
        return
    assert print_manifest(manifest).rstrip("\n") == damaged.rstrip("\n")


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("pbserv-image 1", "pbserv-image 2", 1, "header"),
        ("pbserv-image 1\n", "", 1, "header"),
        ("disk 4294967296 512 gpt uefi\n", "", 2, "record"),
        ("disk 4294967296", "disk -1", 2, "size_bytes"),
        ("disk 4294967296", "disk 9223372036854775808", 2, "size_bytes"),
        ("disk 4294967296", "disk 0", 2, "size_bytes"),
        (" 512 ", " 513 ", 2, "logical_sector_size"),
        (" gpt ", " mbr ", 2, "partition_table"),
        (" uefi", " UEFI", 2, "firmware"),
        (" uefi\n", " uefi\r\n", 2, "firmware"),
        ("item table", "part table", 3, "record"),
        ("item table", "item  table", 3, "item"),
        ("item table", "item ../x", 3, "name"),
        ("item table", "item .hidden", 3, "name"),
        ("item table", "item manifest", 3, "name"),
        (" sfdisk ", " tar ", 3, "kind"),
        (" 0 812 ", " x 812 ", 3, "partition_number"),
        (" 0 812 ", " 0 0812 ", 3, "stored_bytes"),
        ("partclone.vfat", "partclone.", 4, "kind"),
        ("p2.ext4", "p1.vfat", 5, "name"),
        (f"{SHA} 3221225472", f"{SHA[:-1]} 3221225472", 5, "sha256"),
        (f"{SHA} 3221225472", f"{SHA.upper()} 3221225472", 5, "sha256"),
        ("3221225472\n", "3221225472\n\n", 6, "record"),
        (" 3221225472", " 1_000", 5, "uncompressed_bytes"),
        (" 3221225472", " ١", 5, "uncompressed_bytes"),
    ],
)
def test_refusals_name_line_and_field(old, new, line, field):
    with pytest.raises(ManifestError) as caught:
        parse(GOOD.replace(old, new, 1))
    assert (caught.value.line, caught.value.field) == (line, field)
    assert f"line {line}: {field}" in str(caught.value)


def test_an_image_without_items_is_refused():
    with pytest.raises(ManifestError, match="at least one item"):
        parse("pbserv-image 1\ndisk 0 512 none bios\n")


def test_limits():
    head = "pbserv-image 1\ndisk 0 512 none bios\n"
    lines = [f"item i{number} raw 0 1 {SHA} 1\n" for number in range(257)]
    assert len(parse(head + "".join(lines[:256])).items) == 256
    with pytest.raises(ManifestError, match="more than 256 items"):
        parse(head + "".join(lines))
    with pytest.raises(ManifestError, match="more than 65536 bytes"):
        parse(head + "x" * 65536)
    with pytest.raises(ManifestError, match="more than 65536 bytes"):
        parse("ü" * 40000)


@pytest.mark.parametrize("name", ["win11-base", "A", "0.9_x-y", "a" * 64])
def test_good_image_names(name):
    assert check_image_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".incoming", "-x", "a/b", "a\\b", "a" * 65, "ä", "a b", "a\n", "a\0", "../../etc"]
)
def test_bad_image_names(name):
    with pytest.raises(InvalidName):
        check_image_name(name)


@pytest.mark.parametrize("name", ["", ".x", "..", "a/b", "manifest", "a\n", "a" * 65])
def test_bad_item_names(name):
    with pytest.raises(InvalidName):
        check_item_name(name)


def test_a_single_file_has_a_manifest_that_parses():
    assert parse(print_manifest(single_file("file", 5, SHA))) == single_file("file", 5, SHA)


FACTS = "fact - tool pbserv%20client\nfact p1.vfat fs vfat\nfact p1.vfat body_sha256 " + SHA + "\n"


def test_facts_are_read_and_replaced():
    manifest = parse(GOOD + FACTS)
    assert manifest.fact("", "tool") == "pbserv client"
    assert (manifest.fact("p1.vfat", "fs"), manifest.fact("p2.ext4", "fs")) == ("vfat", "")
    assert print_manifest(manifest) == GOOD + FACTS
    changed = manifest.with_facts([Fact("p1.vfat", "fs", "fat32"), Fact("", "compressor", "zstd"), Fact("", "fs", "")])
    assert len(changed.facts) == 4
    assert changed.fact("p1.vfat", "fs") == "fat32"


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("fact p9 fs vfat", "item"),
        ("fact - Tool x", "key"),
        ("fact - tool", "fact"),
        ("fact - tool a b", "fact"),
        ("fact - tool %zz", "value"),
        ("fact - tool %ff", "value"),
        ("fact - tool a%2fb", "value"),
        ("fact - tool x\nfact - tool y", "key"),
        (f"fact - tool x\nitem p3 raw 1 1 {SHA} 1", "record"),
    ],
)
def test_facts_that_are_refused(line, field):
    with pytest.raises(ManifestError) as caught:
        parse(GOOD + line + "\n")
    assert caught.value.field == field


def test_a_manifest_on_the_disk_may_have_more_facts_than_a_client_may_send():
    many = parse(GOOD).with_facts(Fact("", "a" * (number % 24) + "b" * (number // 24 + 1), "x" * 4000)
                                  for number in range(20))  # fmt: skip
    with pytest.raises(ManifestError, match="more than 65536"):
        parse(print_manifest(many))
    assert parse(print_manifest(many), MAX_STORED_BYTES) == many
    with pytest.raises(ManifestError, match="more than 4096 facts"):
        parse(GOOD + "fact - a b\n" * 4097)


@pytest.mark.parametrize("name", ["facts", "p1.ext4.zst.pbx", "-"])
def test_names_of_the_servers_own_files_are_no_items(name):
    with pytest.raises(InvalidName):
        check_item_name(name)


@pytest.mark.parametrize(
    "name", ["win.11", "a b", "a(1)", "", "-a", *(f"a{character}b" for character in "\\/`'[]*?\"<>|:.\t\n")]
)
def test_names_that_new_images_cannot_have(name):
    with pytest.raises(InvalidName):
        check_new_name(name)
    assert check_new_name("win-11_base") == "win-11_base"
