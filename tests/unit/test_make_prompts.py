"""The script that makes the spoken prompts and the music."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import wave
from pathlib import Path

import pytest

from idbellen.demo.pbx import CHECKOUT
from idbellen.domain.prompts import Prompt

PROMPTS = CHECKOUT / "prompts"
TEXT = """\
[nl]
hello = "Goedendag."
code-wrong = "Deze code klopt niet."
[en]
hello = "Good day."
code-wrong = "That code is not right."
"""
NAMES = {prompt.value for prompt in Prompt}


def run(work: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROMPTS / "make-prompts", "out", "--text", "text.toml", *options],
        cwd=work,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def make(work: Path, *options: str) -> str:
    done = run(work, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def complaint(work: Path, *options: str, **environment: str) -> str:
    done = run(work, *options, **environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"make-prompts: .+\n", done.stderr)
    return done.stderr


def contents(work: Path) -> dict[str, bytes]:
    return {str(file.relative_to(work / "out")): file.read_bytes() for file in work.glob("out/**/*.wav")}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {path for path in before | after if before.get(path) != after.get(path)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("made")
    (work / "text.toml").write_text(TEXT)
    assert "5 made, 0 unchanged" in make(work)
    return work


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "work")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "text.toml").write_text(TEXT)
    return tmp_path


def test_every_prompt_has_a_sentence_in_both_languages() -> None:
    tables = tomllib.loads((PROMPTS / "prompts.toml").read_text(encoding="utf-8"))
    assert set(tables) == {"nl", "en"}
    for table in tables.values():
        assert set(table) == NAMES
        assert all(sentence.endswith(".") for sentence in table.values())


def test_prompts_are_what_asterisk_plays(made: Path) -> None:
    names = {f"{language}/idbellen/{name}.wav" for language in ("nl", "en") for name in ("hello", "code-wrong")}
    assert set(contents(made)) == {*names, "moh/calm.wav"}
    for path in contents(made):
        with wave.open(str(made / "out" / path)) as sound:
            assert (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) == (8000, 2, 1)
            seconds = sound.getnframes() / 8000
            samples = memoryview(sound.readframes(sound.getnframes())).cast("h")
        loudest = max(abs(sample) for sample in samples) / 32768
        if path == "moh/calm.wav":
            assert 55 < seconds < 65
            assert loudest < 0.3
        else:
            assert 0.5 < seconds < 3
            assert 0.45 < loudest < 0.55
            heard = [index / 8000 for index, sample in enumerate(samples) if abs(sample) > 300]
            assert heard[0] < 0.15
            assert heard[-1] > seconds - 0.3


def test_nothing_is_left_beside_the_results(made: Path) -> None:
    assert {file.name for file in (made / "out").iterdir()} == {"nl", "en", "moh", ".stamps.json"}


def test_second_time_makes_nothing(work: Path) -> None:
    times = {file: file.stat().st_mtime_ns for file in work.glob("out/**/*")}
    assert make(work) == "out: 0 made, 5 unchanged, 0 removed\n"
    assert {file: file.stat().st_mtime_ns for file in work.glob("out/**/*")} == times


def test_an_edited_sentence_makes_only_that_prompt(work: Path) -> None:
    before = contents(work)
    (work / "text.toml").write_text(TEXT.replace("Good day", "Good evening"))
    assert "1 made, 4 unchanged" in make(work)
    assert changed(before, contents(work)) == {"en/idbellen/hello.wav"}


def test_a_lost_file_is_made_again(work: Path) -> None:
    before = contents(work)
    (work / "out/nl/idbellen/hello.wav").unlink()
    assert "1 made" in make(work)
    assert contents(work) == before


def test_a_prompt_without_its_name_is_removed_and_other_files_stay(work: Path) -> None:
    (work / "out/nl/idbellen/own.wav").touch()
    before = contents(work)
    (work / "text.toml").write_text("".join(line for line in TEXT.splitlines(keepends=True) if "hello" not in line))
    assert "0 made, 3 unchanged, 2 removed" in make(work)
    assert changed(before, contents(work)) == {"nl/idbellen/hello.wav", "en/idbellen/hello.wav"}


def test_stamps_cannot_remove_a_file_elsewhere(work: Path) -> None:
    precious = work / "precious.wav"
    precious.touch()
    stamps = work / "out/.stamps.json"
    stamps.write_text(json.dumps(json.loads(stamps.read_text()) | {"../precious.wav": "x"}))
    make(work)
    assert precious.exists()


@pytest.mark.parametrize("broken", ["{", "[]", "\xff"])
def test_broken_stamps_only_mean_more_work(work: Path, broken: str) -> None:
    before = contents(work)
    (work / "out/.stamps.json").write_bytes(broken.encode("latin-1"))
    assert "5 made" in make(work)
    assert contents(work) == before


@pytest.mark.parametrize("folder", ["recordings", "ours"])
def test_a_recording_replaces_the_voice(work: Path, folder: str) -> None:
    before = contents(work)
    recording = work / folder / "nl/hello.flac"
    recording.parent.mkdir(parents=True)
    tone = ["synth", "1.5", "sine", "440", "sine", "550", "pad", "1", "2"]
    subprocess.run(["sox", "-n", "-r", "44100", "-c", "2", recording, *tone], check=True)
    options = [] if folder == "recordings" else ["--recordings", folder]
    assert "1 made" in make(work, *options)
    assert changed(before, contents(work)) == {"nl/idbellen/hello.wav"}
    with wave.open(str(work / "out/nl/idbellen/hello.wav")) as sound:
        assert (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) == (8000, 2, 1)
        assert 1.6 < sound.getnframes() / 8000 < 1.8  # without the silence around it
    recording.unlink()
    assert "1 made" in make(work, *options)
    assert contents(work) == before


def test_a_recording_nobody_uses_is_named(work: Path) -> None:
    (work / "recordings/nl").mkdir(parents=True)
    (work / "recordings/nl/helo.wav").touch()
    done = run(work)
    assert done.returncode == 0
    assert re.fullmatch(r"make-prompts: not used, .*/nl/helo\.wav\n", done.stderr)


@pytest.mark.parametrize(("seconds", "says"), [(None, "sox FAIL"), ("2", "nothing to hear")])
def test_a_recording_that_will_not_do(work: Path, seconds: str | None, says: str) -> None:
    before = contents(work)
    recording = work / "recordings/en/hello.wav"
    recording.parent.mkdir(parents=True)
    recording.write_text("this is not sound")
    if seconds:
        subprocess.run(["sox", "-n", "-r", "8000", recording, "trim", "0", seconds], check=True)
    error = complaint(work)
    assert "en/idbellen/hello.wav: " in error
    assert says in error
    assert contents(work) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[nl]\nhello = Goedendag\n[en]\n", "text.toml: .*line 2"),
        ("[nl]\nhello = 'Hé'\n[en]\nhello = 'H\udce9'\n", "text.toml: .*utf-8"),
        (TEXT.replace('"Good day."', '" "'), r"hello has no sentence in \[en\]"),
        (TEXT.replace('"Goedendag."', "3"), r"hello has no sentence in \[nl\]"),
        (TEXT + "new = 'New.'\n", r"new has no sentence in \[nl\]"),
        (TEXT.partition("[en]")[0], r"hello has no sentence in \[en\]"),
        ("", "no sentences"),
        (TEXT + "'../up' = 'Up.'\n", "'../up' is not a name"),
        (TEXT + "[de]\nhello = 'Guten Tag.'\n", "found de"),
        ("hello = 'Hello.'\n" + TEXT, "found hello"),
        (TEXT + "[voices]\nde = 'de'\n[de]\nhello = 'Guten Tag.'\n", r"code-wrong has no sentence in \[de\]"),
    ],
)
def test_faults_in_the_text_are_told_in_one_line(empty: Path, text: str, says: str) -> None:
    (empty / "text.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert re.search(says, complaint(empty))
    assert not (empty / "out").exists()


def test_other_faults_are_told_in_one_line(empty: Path) -> None:
    error = complaint(empty, PATH="")
    assert "espeak-ng, sox" in error
    assert "Debian packages" in error
    assert "nowhere" in complaint(empty, "--recordings", "nowhere")
    (empty / "out").touch()
    assert re.search(r"out.*: (Not a directory|File exists)", complaint(empty))
    (empty / "text.toml").unlink()
    assert "text.toml: No such file" in complaint(empty)
