"""ChatMessage.user: what is shown with the text is sent as the API takes it, or refused."""

from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from . import lib, loaded_by

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0"
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0"
MP3_TAG = b"ID3\4\0\0\0\0\0\0"
MP3_FRAME = b"\xff\xfb\x90\x64"
PDF = b"%PDF-1.7\n"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

USER = lib.ChatMessage.user


def base64(data):
    return b64encode(data).decode()


def sent(*args, **kwargs):
    return USER(*args, **kwargs).to_dict()["content"]


def image_of(given):
    [part] = sent("", images=given)
    assert part.keys() == {"type", "image_url"}
    return part["image_url"]["url"]


def refusal(**given):
    with pytest.raises(lib.ConfigError) as caught:
        USER("Look.", **given)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1300
    return text


@pytest.fixture
def path(tmp_path):
    """Write a file; give its path."""

    def written(name, data):
        file = tmp_path / name
        file.write_bytes(data)
        return file

    return written


@pytest.mark.parametrize("nothing", [{}, {"images": [], "audio": (), "files": iter([])}])
def test_text_alone_stays_text(nothing):
    assert USER("Hi", **nothing).to_dict() == {"role": "user", "content": "Hi"}
    assert USER("", **nothing, detail="low").to_dict() == {"role": "user", "content": ""}


def test_text_alone_costs_no_start():
    loaded = loaded_by(f"import {lib.name} as lib; lib.ChatMessage.user('Hi')")
    assert lib.name in loaded
    assert not loaded & {"base64", "mimetypes", "hmac"}


def test_the_parts_are_text_images_audio_files_each_in_their_order(path):
    message = USER(
        "Look.",
        files=[path("b.pdf", PDF), "file-abc123"],
        audio=WAV,
        images=["https://host/a.png", path("a.png", PNG)],
    )
    assert message.text == "Look."
    assert message.to_dict() == {
        "role": "user",
        "content": [
            {"type": "text", "text": "Look."},
            {"type": "image_url", "image_url": {"url": "https://host/a.png"}},
            {
                "type": "image_url",
                "image_url": {"url": f"data:image/png;base64,{base64(PNG)}"},
            },
            {"type": "input_audio", "input_audio": {"data": base64(WAV), "format": "wav"}},
            {
                "type": "file",
                "file": {
                    "filename": "b.pdf",
                    "file_data": f"data:application/pdf;base64,{base64(PDF)}",
                },
            },
            {"type": "file", "file": {"file_id": "file-abc123"}},
        ],
    }


def test_an_empty_text_is_no_part():
    assert [part["type"] for part in sent("", images=PNG)] == ["image_url"]


# Images


@pytest.mark.parametrize(
    "url", ["http://host/a", "HTTPS://host/a", "data:image/png;base64,AA==", "data:,"]
)
def test_the_url_of_an_image_is_sent_as_it_is(url):
    assert image_of(url) == image_of([url]) == url


@pytest.mark.parametrize(
    "given_as",
    [str, Path, lambda path: [path], lambda path: (str(path),), lambda path: path.parent.glob("*"),
     Path.read_bytes, lambda path: bytearray(path.read_bytes()),
     lambda path: [memoryview(path.read_bytes())]],
    ids=["str", "Path", "list", "tuple", "glob", "bytes", "bytearray", "memoryview"],
)  # fmt: skip
def test_an_image_is_a_path_or_bytes_alone_or_among_several(given_as, path):
    assert image_of(given_as(path("a.png", PNG))) == f"data:image/png;base64,{base64(PNG)}"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "png"),
        (JPEG, "jpeg"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"RIFF\n\0\0\0WEBPVP8 ", "webp"),
        (b"BM\x46\0\0\0\0\0\0\0", "bmp"),
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"\0\0\0\x18ftypheic", "heic"),
        (b"\0\0\0\x18ftypavif", "avif"),
    ],
)
def test_the_kind_of_an_image_is_what_its_bytes_tell(data, kind, path):
    assert image_of(data).startswith(f"data:image/{kind};base64,")
    assert image_of(path("a.txt", data)) == image_of(data)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "jpeg"), ("A.PNG", "png"), ("a.webp", "webp"), ("a.b.gif", "gif")]
)
def test_where_bytes_tell_nothing_the_name_does(name, kind, path):
    assert image_of(path(name, b"?")) == f"data:image/{kind};base64,Pw=="


def test_detail_is_told_for_every_image(path):
    parts = sent("", images=["https://host/a", PNG], detail="low")
    assert [part["image_url"]["detail"] for part in parts] == ["low", "low"]


def test_detail_is_any_text_and_nothing_to_audio_and_files():
    parts = sent("", images="https://host/a", audio=WAV, files=PDF, detail="enormous")
    assert parts[0] == {
        "type": "image_url",
        "image_url": {"url": "https://host/a", "detail": "enormous"},
    }
    assert "enormous" not in str(parts[1:])


@pytest.mark.parametrize("argument", ["images", "audio", "files"])
def test_a_part_in_the_apis_own_form_is_sent_as_it_is(argument):
    plain = {"type": "video_url", "video_url": {"url": "https://host/a"}}
    noun = lib.ContentPart("image_url", image_url={"url": "https://host/b"})
    assert sent("", **{argument: plain}, detail="low") == [plain]
    assert sent("", **{argument: [noun, plain]}, detail="low") == [noun.to_dict(), plain]


# Audio


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (WAV, "wav"),
        (MP3_TAG, "mp3"),
        (MP3_FRAME, "mp3"),
        (b"\xff\xf3\x40", "mp3"),
        (b"\xff\xe2\x40", "mp3"),
    ],
)
def test_the_format_of_audio_is_what_its_bytes_tell(data, form, path):
    expected = [{"type": "input_audio", "input_audio": {"data": base64(data), "format": form}}]
    assert sent("", audio=data) == sent("", audio=path("a.bin", data)) == expected


@pytest.mark.parametrize(("name", "form"), [("a.wav", "wav"), ("a.MP3", "mp3")])
def test_or_else_what_the_name_of_the_clip_tells(name, form, path):
    [part] = sent("", audio=path(name, b"?"))
    assert part["input_audio"] == {"data": "Pw==", "format": form}


@pytest.mark.parametrize(
    ("url", "data", "form"),
    [
        (f"data:audio/wav;base64,{base64(WAV)}", WAV, "wav"),
        ("data:audio/x-wav;base64,Pw==", b"?", "wav"),
        ("DATA:Audio/MPEG;codecs=mp3; BASE64,Pw%3D%3D", b"?", "mp3"),
        ("data:audio/mp3,%3F", b"?", "mp3"),
    ],
)
def test_audio_in_a_data_url_is_unpacked(url, data, form):
    [part] = sent("", audio=url)
    assert part["input_audio"] == {"data": base64(data), "format": form}


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.flac", b"fLaC\0\0\0\x22"), ("a.ogg", b"OggS\0"), ("a.m4a", b"\0\0\0\x18ftypM4A "),
     ("a.aac", b"\xff\xf1\x50"), ("a.mp2", b"\xff\xfd\x90"), ("a.png", PNG), ("a.wav", PDF)],
)  # fmt: skip
def test_audio_of_another_kind_is_refused_with_the_kinds_there_are(name, data, path):
    text = refusal(audio=path(name, data))
    assert "wav and mp3" in text
    assert name in text
    assert "data:" not in text


# Files


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.pdf", PDF, "application/pdf"),
        ("a.dat", PDF, "application/pdf"),
        ("a.pdf", b"?", "application/pdf"),
        ("ä b.CSV", b"?", "text/csv"),
        ("a.txt", b"?", "text/plain"),
        ("a.md", b"?", "text/markdown"),
        ("a.docx", b"PK\3\4", DOCX),
    ],
)
def test_a_file_is_sent_with_its_name_and_kind(name, data, kind, path):
    [part] = sent("", files=path(name, data))
    assert part == {
        "type": "file",
        "file": {"filename": name, "file_data": f"data:{kind};base64,{base64(data)}"},
    }


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (PDF, "file.pdf"),
        ("data:text/plain;charset=utf-8,hi", "file.txt"),
        (f"data:{DOCX};base64,UEsDBA==", "file.docx"),
        ("data:text/x-unheard-of,hi", "file"),
    ],
)
def test_a_file_without_a_name_is_named_by_its_kind(given, name):
    [part] = sent("", files=given)
    assert part["file"]["filename"] == name


def test_a_file_in_a_data_url_is_sent_in_base64():
    [part] = sent("", files="data:text/plain;charset=utf-8,h%69")
    assert part["file"]["file_data"] == "data:text/plain;base64,aGk="


def test_the_id_of_an_uploaded_file_is_told_from_the_name_of_one(path, monkeypatch):
    monkeypatch.chdir(path("file-abc", PDF).parent)
    assert sent("", files="file-xyz") == [{"type": "file", "file": {"file_id": "file-xyz"}}]
    assert sent("", files="file-abc")[0]["file"]["filename"] == "file-abc"
    assert "file-report.pdf: No such file" in refusal(files="file-report.pdf")
    assert "file-xyz: No such file" in refusal(files=Path("file-xyz"))


# What can't be sent

ARGUMENTS = pytest.mark.parametrize("argument", ["images", "audio", "files"])


@ARGUMENTS
def test_what_cannot_be_read_is_refused_with_its_path(argument, path, tmp_path):
    empty, folder = path("empty.png", b""), tmp_path / "folder"
    folder.mkdir()
    for given, words in [
        (tmp_path / "none.png", "none.png: No such file or directory"),
        (f"{tmp_path}/none.png", "none.png: No such file or directory"),
        ("~/none.png", "~/none.png: No such file or directory"),
        (folder, "folder: it is a folder"),
        (empty / "a.png", "empty.png/a.png: Not a directory"),
        (empty, "empty.png: empty"),
        (b"", "0 bytes: empty"),
        ("", "'': No such file or directory"),
        ("a\0b", "null"),
        ("A" * 100_000, "File name too long"),
    ]:
        assert words in refusal(**{argument: given})
        assert words in refusal(**{argument: [given]})


def test_a_failure_to_read_is_chained(tmp_path):
    with pytest.raises(lib.ConfigError) as caught:
        USER("", images=tmp_path / "none.png")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@ARGUMENTS
@pytest.mark.parametrize("name", ["a", "a.unheard-of", "a.bin", "a.txt.gz", ".png"])
def test_what_is_of_no_known_kind_is_refused_with_its_path(argument, name, path):
    text = refusal(**{argument: path(name, b"?")})
    assert f"{name}: neither its first bytes nor its name tell its kind" in text
    assert "1 bytes: neither" in refusal(**{argument: b"?"})


def test_an_image_of_another_kind_is_refused_with_that_kind(path):
    text = refusal(images=path("notes.txt", b"?"))
    assert text.startswith("not an image that can be sent: ")
    assert text.endswith("notes.txt: its kind is text/plain")
    assert refusal(images=PDF).endswith("9 bytes: its kind is application/pdf")
    assert "application/pdf" in refusal(images=path("a.png", PDF))


@pytest.mark.parametrize("argument", ["audio", "files"])
@pytest.mark.parametrize("url", ["http://host/a.wav", "https://host/a.pdf"])
def test_audio_and_files_have_no_url(argument, url):
    assert f"{url}: the API takes no URL here" in refusal(**{argument: url})


@pytest.mark.parametrize("argument", ["audio", "files"])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:audio/wav;base64,@@@", "data:audio/wav;base64: no base64"),
        ("data:audio/wav;base64,é", "data:audio/wav;base64: no base64"),
        ("data:audio/wav;base64,", "data:audio/wav;base64: empty"),
        ("data:audio/wav", "empty"),
        ("data:;base64,Pw==", "neither"),
        ("data:application/octet-stream,?", "neither"),
    ],
)
def test_a_broken_data_url_is_refused_without_its_data(argument, url, words):
    assert words in refusal(**{argument: url})


@ARGUMENTS
@pytest.mark.parametrize("given", [5, None, True, [5], [None], [[PNG]], object()], ids=repr)
def test_another_type_is_refused(argument, given):
    text = refusal(**{argument: given})
    assert text.endswith(": give a URL, a path or bytes")
    assert "of type " in text


@ARGUMENTS
def test_an_open_file_is_refused_and_left_unread(argument, path):
    with path("a.png", PNG).open("rb") as file:
        assert "of type BufferedReader" in refusal(**{argument: file})
        assert "of type BufferedReader" in refusal(**{argument: [file]})
        assert file.tell() == 0


def test_an_image_of_any_size_comes_whole(path):
    data = PNG + bytes(range(256)) * 1000
    assert b64decode(image_of(path("a.png", data)).partition(",")[2]) == data
