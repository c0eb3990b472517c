"""Archives are unpacked whole or not at all, and nothing in one reaches outside its folder."""

import gzip
import io
import os
import random
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from rayxform.errors import ModelSourceError
from rayxform.model import check_syntax, find_entry_point, unpack_model

MIB = 1024 * 1024


def file(name: str, contents: bytes = b"x", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(contents), mode
    return member, contents


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.DIRTYPE)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.SYMTYPE, target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.LNKTYPE, target)


def pack(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for member, contents in members:
            tar.addfile(member, io.BytesIO(contents))
    return path


@pytest.fixture
def place(tmp_path):
    """A folder for models with a file beside it that no archive may touch."""
    root = tmp_path / "around" / "models"
    root.mkdir(parents=True)
    (tmp_path / "around" / "precious").write_text("untouched")
    return root


def everything_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def shown(folder: Path) -> list[Path]:
    """What is in a folder, but for the locks of its entries."""
    return [path for path in folder.iterdir() if path.suffix not in (".lock", ".use")]


def refused(archive: Path, place: Path, **limits: int) -> str:
    """The message of the refusal; nothing may be left, inside or outside."""
    outside = place.parent
    with pytest.raises(ModelSourceError) as caught:
        unpack_model(archive, place, **limits)
    assert everything_in(outside) == ["models", "precious"]
    assert (outside / "precious").read_text() == "untouched"
    assert not Path("/tmp/rayxform-evil").exists()
    return str(caught.value)


def test_a_model_is_unpacked_into_a_folder_named_by_its_contents(tmp_path, place):
    archive = pack(tmp_path / "model.tar.gz", folder("./"), file("./model.pth", b"weights"), file("./code/inference.py"))
    unpacked = unpack_model(archive, place)
    assert everything_in(unpacked) == ["code", "code/inference.py", "model.pth"]
    assert (unpacked / "model.pth").read_bytes() == b"weights"
    assert unpacked.parent == place
    assert len(unpacked.name) == 32


def test_a_model_that_is_there_is_used_again(tmp_path, place):
    archive = pack(tmp_path / "model.tar.gz", file("model.pth"))
    first = unpack_model(archive, place)
    inode = (first / "model.pth").stat().st_ino
    copy = tmp_path / "copy.tgz"
    copy.write_bytes(archive.read_bytes())
    assert unpack_model(copy, place) == first
    assert (first / "model.pth").stat().st_ino == inode
    assert unpack_model(pack(tmp_path / "other.tar.gz", file("model.pth", b"new")), place) != first


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_plain_tar_with_long_names_is_a_model_too(tmp_path, place, tar_format):
    name = "/".join(["folder" * 5] * (5 if tar_format == tarfile.USTAR_FORMAT else 9)) + "/weights.bin"
    with tarfile.open(tmp_path / "model.tar", "w", format=tar_format) as tar:
        member, contents = file(name, b"w" * 3 * MIB)
        tar.addfile(member, io.BytesIO(contents))
    assert (unpack_model(tmp_path / "model.tar", place) / name).read_bytes() == contents


def test_the_folder_itself_may_be_a_member(tmp_path, place):
    """Packed as "/", of which tarfile leaves nothing, by the SageMaker Python SDK's repack_model; as "./" by tar."""
    for number, name in enumerate(("/", "./", "")):
        root = tarfile.TarInfo(name)
        root.type = tarfile.DIRTYPE
        archive = pack(tmp_path / f"{number}.tar.gz", (root, b""), (tarfile.TarInfo("model.pth"), b""))
        assert [path.name for path in unpack_model(archive, place).iterdir()] == ["model.pth"]


def test_links_inside_the_model_work(tmp_path, place):
    archive = pack(
        tmp_path / "model.tar.gz",
        link("code/weights.bin", "../weights/best.bin"),
        file("weights/best.bin", b"best"),
        hard_link("weights/same.bin", "weights/best.bin"),
        link("latest", "weights"),
    )
    unpacked = unpack_model(archive, place)
    for name in ("code/weights.bin", "weights/same.bin", "latest/best.bin"):
        assert (unpacked / name).read_bytes() == b"best"


def test_only_the_right_to_execute_survives(tmp_path, place):
    archive = pack(tmp_path / "model.tar.gz", file("tool", mode=0o6777), file("data", mode=0o4666))
    unpacked = unpack_model(archive, place)
    assert stat.S_IMODE((unpacked / "tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((unpacked / "data").stat().st_mode) == 0o644


def test_of_two_members_with_one_path_the_later_wins(tmp_path, place):
    archive = pack(tmp_path / "model.tar.gz", file("a", b"old"), hard_link("b", "a"), file("a", b"new"))
    unpacked = unpack_model(archive, place)
    assert [(unpacked / name).read_bytes() for name in "ab"] == [b"new", b"old"]


EVIL = {
    "absolute": [file("/tmp/rayxform-evil")],
    "absolute after a slash or two": [file("//tmp/rayxform-evil")],
    "parent": [file("../precious", b"evil")],
    "parent inside": [folder("a"), file("a/../../precious", b"evil")],
    "parent as a folder": [folder("..")],
    "link out": [link("out", "../precious")],
    "absolute link": [link("out", "/etc/passwd")],
    "link to the parent from below": [folder("a"), link("a/out", "../../precious")],
    "write through a link out": [link("out", ".."), file("out/precious", b"evil")],
    "write through a link inside": [folder("real"), link("alias", "real"), file("alias/x")],
    "a link in place of a folder": [folder("d"), file("d/x"), link("d", "..")],
    "a file in place of a link": [link("l", "precious"), file("l", b"evil")],
    "hard link out": [hard_link("out", "../precious")],
    "absolute hard link": [hard_link("out", "/etc/passwd")],
    "hard link to a link": [link("l", "x"), file("x"), hard_link("h", "l")],
    "hard link before its file": [hard_link("h", "x"), file("x")],
    "hard link, then written": [hard_link("h", "../precious"), file("h", b"evil")],
    "chain: up through a link that leads up": [folder("p/q"), link("p/q/x", "../.."), link("p/q/out", "x/../precious")],
    "chain, the outer link first": [folder("p/q"), link("p/q/out", "x/../precious"), link("p/q/x", "../..")],
    "chain of links to itself": [link("a", "."), link("b", "a/.."), link("c", "b/.."), file("c/precious", b"evil")],
    "chain by another case": [folder("p/q"), link("p/q/X", "../.."), link("p/q/out", "x/../precious")],
    "device": [special("null", tarfile.CHRTYPE)],
    "block device": [special("disk", tarfile.BLKTYPE)],
    "pipe": [special("pipe", tarfile.FIFOTYPE)],
    "unknown kind": [special("what", b"Z")],
    "link to nothing": [link("l", "")],
}


@pytest.mark.parametrize("evil", EVIL)
def test_an_unsafe_member_is_refused_by_name(tmp_path, place, evil):
    """The message names the archive and the member, and says what to do; nothing is left behind."""
    members = EVIL[evil]
    archive = pack(tmp_path / "model.tar.gz", file("harmless"), *members)
    message = refused(archive, place)
    assert str(archive) in message
    assert any(f"member {member.name.rstrip('/')!r}" in message for member, _ in members)
    assert "Pack" in message


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python has no data filter to go without")
@pytest.mark.parametrize("evil", EVIL)
def test_an_unsafe_member_is_refused_without_the_data_filter(tmp_path, place, evil, monkeypatch):
    """As on Python 3.10.0 to 3.10.11, which lack the filter."""
    monkeypatch.delattr(tarfile, "data_filter")
    refused(pack(tmp_path / "model.tar.gz", *EVIL[evil]), place)


def test_long_chains_of_links_do_not_lead_out(tmp_path, place):
    """CVE-2025-4517: a path too long to be resolved made tarfile take a link out for one that stays."""
    long = "d" * 247
    members, path = [], ""
    for letter in "abcdefghijklmnop":
        members += [folder(f"{path}{long}"), link(f"{path}{letter}", long)]
        path += f"{letter}/"
    deep = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    members += [link(deep, "../" * 16), link("escape", f"{deep}/../../precious"), file("escape", b"evil")]
    refused(pack(tmp_path / "model.tar.gz", *members), place)


def test_a_bomb_is_refused_at_the_limit(tmp_path, place):
    archive = pack(tmp_path / "model.tar.gz", file("zeros", bytes(50 * MIB)))
    assert archive.stat().st_size < MIB / 10
    assert "1,048,576 bytes allowed" in refused(archive, place, max_bytes=MIB)


def test_many_small_members_count_together(tmp_path, place):
    archive = pack(tmp_path / "model.tar.gz", *(file(f"f{number}", bytes(MIB // 4)) for number in range(5)))
    assert "member 'f4'" in refused(archive, place, max_bytes=MIB)
    assert unpack_model(archive, place, max_bytes=5 * MIB // 4).is_dir()


def test_too_many_members_are_refused(tmp_path, place):
    archive = pack(tmp_path / "model.tar.gz", *(file(f"f{number}") for number in range(11)))
    assert "member 'f10' is one more than the 10 members allowed" in refused(archive, place, max_members=10)


def test_a_sparse_file_counts_with_its_holes(tmp_path, place):
    """GNU tar writes a gigabyte of holes in ten kilobytes."""
    with (tmp_path / "holes").open("wb") as holes:
        holes.truncate(1024 * MIB)
    command = ["tar", "--sparse", "-czf", "model.tar.gz", "holes"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert "member 'holes'" in refused(tmp_path / "model.tar.gz", place, max_bytes=MIB)


def test_a_header_bomb_is_refused(tmp_path, place):
    """A comment of 5 MB in a header would be read into memory as one piece."""
    member, contents = file("f")
    member.pax_headers = {"comment": "c" * 5 * MIB}
    assert "header" in refused(pack(tmp_path / "model.tar.gz", (member, contents)), place)


def test_what_follows_the_end_mark_counts(tmp_path, place):
    plain = pack(tmp_path / "model.tar", file("f"), mode="w").read_bytes()
    (tmp_path / "model.tar.gz").write_bytes(gzip.compress(plain + bytes(20 * MIB)))
    assert "bytes allowed" in refused(tmp_path / "model.tar.gz", place, max_bytes=MIB, max_members=10)


def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path, place):
    """Each cut of a gzip archive fails with how far it was read, and leaves nothing."""
    random_bytes = random.Random(0).randbytes
    whole = pack(tmp_path / "model.tar.gz", *(file(f"f{number}", random_bytes(700)) for number in range(3))).read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for size in [0, 1, 2, 10, *range(20, len(whole), 97), len(whole) - 8, len(whole) - 1]:
        cut.write_bytes(whole[:size])
        message = refused(cut, place)
        assert "ends too early" in message or "neither a gzip nor a tar" in message
        assert size < 2 or f"{size:,} of its {size:,} bytes" in message


def test_a_truncated_plain_tar_is_refused_wherever_it_ends(tmp_path, place):
    """Between two members too, where tarfile by itself takes the rest for missing and says nothing."""
    whole = pack(tmp_path / "model.tar", *(file(f"f{number}", bytes([65 + number]) * 700) for number in range(3)), mode="w")
    contents = whole.read_bytes()
    end_mark = 3 * (512 + 1024)
    for size in range(262, end_mark + 512, 125):
        (tmp_path / "cut.tar").write_bytes(contents[:size])
        assert "ends too early" in refused(tmp_path / "cut.tar", place)


def test_a_damaged_archive_is_refused_or_whole(tmp_path, place):
    """One flipped byte: either it is seen, or (in gzip's own header) it does not matter."""
    members = [file("f0", random.Random(0).randbytes(900)), file("f1", b"second")]
    whole = pack(tmp_path / "model.tar.gz", *members).read_bytes()
    damaged = tmp_path / "damaged.tar.gz"
    n_refused = 0
    for position in range(0, len(whole), 7):
        damaged.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            unpacked = unpack_model(damaged, place)
        except ModelSourceError:
            n_refused += 1
        else:
            assert [(unpacked / name).read_bytes() for name in ("f0", "f1")] == [contents for _, contents in members]
    assert n_refused > 100


def test_a_damaged_header_does_not_end_the_archive_quietly(tmp_path, place):
    """By itself tarfile stops there, and what follows is missing without a word."""
    contents = bytearray(pack(tmp_path / "model.tar", file("a"), file("b"), file("c"), mode="w").read_bytes())
    contents[1024] ^= 0xFF
    (tmp_path / "damaged.tar").write_bytes(contents)
    assert "no valid header at byte 1024" in refused(tmp_path / "damaged.tar", place)


def test_a_header_that_leads_backwards_does_not_hang(tmp_path, place):
    """CVE-2025-8194: a negative size sends tarfile in circles."""
    contents = bytearray(pack(tmp_path / "model.tar", file("a"), file("b"), mode="w").read_bytes())
    contents[1024 + 124 : 1024 + 136] = b"\xff" * 4 + (-1024).to_bytes(8, "big", signed=True)
    header = bytearray(contents[1024:1536])
    header[148:156] = b" " * 8
    contents[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(header)
    (tmp_path / "evil.tar").write_bytes(contents)
    assert "damaged" in refused(tmp_path / "evil.tar", place)


def test_what_is_no_archive_is_called_by_its_name(tmp_path, place):
    path = tmp_path / "model.tar.gz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inference.py", "")
    assert "a zip archive" in refused(path, place)
    path.write_text("<!doctype html><title>Access denied</title>")
    assert "an HTML or XML page" in refused(path, place)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00")
    assert "a Git LFS pointer" in refused(path, place)
    path.write_bytes(gzip.compress(b'{"id": 1}\n' * 100))
    assert "damaged" in refused(path, place)
    path.write_bytes(gzip.compress(bytes(10240)))
    assert "holds no member" in refused(path, place)
    assert "does not exist" in refused(tmp_path / "nowhere.tar.gz", place)


def test_processes_that_unpack_at_once_share_one_folder(tmp_path, place):
    archive = pack(tmp_path / "model.tar.gz", *(file(f"f{number}", os.urandom(MIB // 2)) for number in range(8)))
    program = (
        "import sys, pathlib; from rayxform.model.archives import unpack_model\n"
        "sys.stdin.readline()\n"
        "print(unpack_model(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", program, str(archive), str(place)]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    folders = {child.communicate(timeout=60)[0].strip() for child in children}
    assert folders == {str(unpack_model(archive, place))}
    assert shown(place) == [Path(folders.pop())]


def test_threads_that_unpack_at_once_share_one_folder(tmp_path, place):
    """The loser of the race takes the winner's folder, and leaves none of its own."""
    archive = pack(tmp_path / "model.tar.gz", *(file(f"f{number}", os.urandom(1000)) for number in range(50)))
    barrier, folders = threading.Barrier(6), []

    def unpack():
        barrier.wait()
        folders.append(unpack_model(archive, place))

    threads = [threading.Thread(target=unpack) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 6
    assert shown(place) == [folders[0]]


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_entry_point_is_looked_for_in_source_dir_then_code_then_the_root(tmp_path):
    model, source = tmp_path / "model", tmp_path / "src"
    source.mkdir()
    root = write(model / "inference.py")
    assert find_entry_point(model, source, "inference.py") == root
    code = write(model / "code" / "inference.py")
    assert find_entry_point(model, None, "inference.py") == code
    assert find_entry_point(model, source, "inference.py") == code
    own = write(source / "inference.py")
    assert find_entry_point(model, source, "inference.py") == own
    assert find_entry_point(model, None, "inference.py") == code


def test_without_an_entry_point_torchscript_runs_by_the_defaults(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/constants.pkl", b"")
    assert find_entry_point(tmp_path, None, "inference.py") is None
    with pytest.raises(ModelSourceError, match=r"there is no serve\.py"):
        find_entry_point(tmp_path, None, "serve.py")


def test_a_missing_entry_point_says_where_it_was_looked_for_and_what_is_there(tmp_path):
    write(tmp_path / "model.pth")
    write(tmp_path / "code" / "infrence.py")
    with pytest.raises(ModelSourceError) as caught:
        find_entry_point(tmp_path, None, "inference.py")
    for part in (
        tmp_path / "code" / "inference.py",
        tmp_path / "inference.py",
        "model.pth, code/infrence.py",
        "SourceDir",
    ):
        assert str(part) in str(caught.value)


def test_a_model_pt_that_is_no_torchscript_needs_an_entry_point(tmp_path):
    """torch.save writes a zip file as well, but the defaults cannot run it."""
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"")
    with pytest.raises(ModelSourceError, match="must be TorchScript"):
        find_entry_point(tmp_path, None, "inference.py")


@pytest.mark.parametrize("name", ["../inference.py", "/etc/inference.py", "a/../../b.py", ""])
def test_an_entry_point_stays_in_its_folder(tmp_path, name):
    with pytest.raises(ModelSourceError, match=r"Model\.EntryPoint is"):
        find_entry_point(tmp_path, None, name)


def test_a_syntax_error_is_shown_with_its_place(tmp_path):
    path = write(tmp_path / "inference.py", "import json\n\ndef model_fn(model_dir):\n    return json.loads('1'\n")
    with pytest.raises(ModelSourceError) as caught:
        check_syntax(path)
    first, text, caret = str(caught.value).split("\n")
    assert first == f"{path} is not valid Python: line 4: '(' was never closed"
    assert text[caret.index("^")] == "("


@pytest.mark.parametrize("source", [b"x = 1\0", b"\xff\xfe", b"(" * 500])
def test_a_file_that_is_no_source_is_refused(tmp_path, source):
    (tmp_path / "inference.py").write_bytes(source)
    with pytest.raises(ModelSourceError, match=r"inference\.py"):
        check_syntax(tmp_path / "inference.py")


def test_checking_runs_nothing(tmp_path):
    check_syntax(write(tmp_path / "inference.py", f"open({str(tmp_path / 'ran')!r}, 'w')"))
    assert not (tmp_path / "ran").exists()
