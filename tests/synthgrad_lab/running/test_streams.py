"""The command's standard streams, backend and Ctrl-C, as a shell sees them."""

import contextlib
import errno
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from synthgrad_lab.running import streams
from tests.helpers.written import write

COMMAND = str(Path(sys.executable).with_name("synthgrad"))
FULL = Path("/dev/full")


def shell(line, **environment):
    """Run a line of a shell in which $S is the command, or $PY a Python with the command's streams."""
    known = {"S": COMMAND, "PY": f"{sys.executable} -c", **environment}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env={**os.environ, **known})


def program(body):
    """The body as Python sees it inside ``standard_streams``; light enough for many of them."""
    lines = [
        "import os, sys",
        "from synthgrad_lab.running.streams import standard_streams",
        "with standard_streams():",
    ]
    return "'" + "\n".join([*lines, *(f"    {line}" for line in [*body, "sys.stdout.flush()"])]) + "'"


def in_terminal(words, environment):
    """The exit code, and what a terminal has been sent."""
    main, terminal = pty.openpty()
    said = b""
    with subprocess.Popen(words, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # how Linux tells that the other end has closed
            while read := os.read(main, 65536):
                said += read
    os.close(main)
    return process.returncode, said.decode()


@pytest.mark.parametrize("words", ["list", "list --help", "env --json"])
def test_a_reader_that_leaves_early_is_no_error(words):
    done = shell(f"$S {words} | true; echo ${{PIPESTATUS[@]}}")
    assert (done.stdout, done.stderr) == ("0 0\n", "")
    done = shell(f"$S {words} | head -c 1; echo ${{PIPESTATUS[@]}}")
    assert (done.stdout[1:], done.stderr) == ("0 0\n", "")


def test_more_than_a_pipe_holds_is_no_error_and_what_follows_is_done(tmp_path):
    body = [f"for _ in range(5): print({200_000} * [1])", f'open("{tmp_path}/done", "w").close()']
    done = shell(f"$PY {program(body)} | head -c 1; echo ${{PIPESTATUS[@]}}")
    assert (done.stdout, done.stderr) == ("[0 0\n", "")
    assert (tmp_path / "done").exists()


def test_notes_without_a_reader_end_nothing(tmp_path):
    body = ['for _ in range(9): print("note", file=sys.stderr)', f'open("{tmp_path}/done", "w").close()']
    for end in ("2>&1 | true", "2>&-", "2>/dev/full" if FULL.exists() else "2>&-"):
        done = shell(f"$PY {program(body)} {end}; echo ${{PIPESTATUS[0]}}")
        assert (done.stdout, done.stderr) == ("0\n", "")
        (tmp_path / "done").unlink()


@pytest.mark.parametrize("words", ["env", "list", "env --json", "list --help"])
@pytest.mark.parametrize(
    ("end", "why"),
    [
        (">&-", "it is closed"),
        pytest.param(
            ">/dev/full",
            os.strerror(errno.ENOSPC),
            marks=pytest.mark.skipif(not FULL.exists(), reason="no /dev/full"),
        ),
    ],
)
def test_a_result_that_cannot_be_shown_is_an_error(words, end, why):
    done = shell(f"$S {words} {end}")
    assert done.returncode == 1
    assert done.stderr == f"synthgrad: standard output could not take the result: {why}\n"


def test_no_stream_at_all(tmp_path):
    record = tmp_path / "run" / "record.jsonl"
    done = shell(f"$S run add --steps 4 --width 4 --out {record.parent} --json <&- >&- 2>&-")
    assert done.returncode == 1  # its result could not be shown
    lines = [json.loads(line) for line in record.read_text().splitlines()]  # and nothing was printed into a file
    assert lines[-1]["kind"] == "result"


def test_notes_never_go_to_standard_output(tmp_path):
    done = shell(f"$S run add --steps 4 --width 4 --out {tmp_path}/run --json 2>&-")
    assert done.returncode == 0
    assert json.loads(done.stdout)["steps"] == 4
    assert done.stdout.count("\n") == 1


def test_a_descriptor_that_does_not_block(tmp_path):
    body = ["os.set_blocking(1, False)", f"print({300_000} * [1])"]
    done = shell(f"$PY {program(body)} | (sleep 0.2; wc -c)")
    assert (done.stdout.strip(), done.stderr) == ("900001", "")


@pytest.mark.parametrize("where", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_an_ascii_output_gets_all_that_is_printed(tmp_path, where):
    write(tmp_path / "a", "dni", 0)
    write(tmp_path / "b", "dni", 1, error=3.0)
    environment = {"PYTHONUTF8": "0", **where}
    done = shell(f"$S report {tmp_path} --out {tmp_path}/page.html", **environment)
    assert done.returncode == 0, done.stderr
    assert "mean +- standard deviation" in done.stdout
    assert "s/step x Bprop" in done.stdout
    assert "+--" in done.stdout  # the table's edges
    done.stdout.encode("ascii")


def test_a_character_that_the_output_lacks_is_spelt_and_a_byte_stays_one():
    body = ['print("R\\xb2 = \\u03b4 \\u2026 \\u03b1 \\udcff")']
    command = ["bash", "-c", f"{sys.executable} -c {program(body)}"]
    for encoding, wanted in (
        ("ascii", b"R^2 = delta ... \\u03b1 \xff\n"),
        ("utf-8", "R² = δ … α ".encode() + b"\xff\n"),
    ):
        done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert (done.stdout, done.stderr) == (wanted, b"")


def test_spellings_are_ascii():
    for character, spelling in streams.SPELT.items():
        assert character.encode("ascii", "synthgrad.spelt").decode() == spelling
        assert not character.isascii()
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", "synthgrad.spelt")


def test_streams_that_others_have_put_there_are_left_alone(capsys):
    before = sys.stdout, sys.stderr
    with streams.standard_streams():
        assert (sys.stdout, sys.stderr) == before
        print("δ")
    assert capsys.readouterr().out == "δ\n"


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "TkAgg"])
def test_any_backend_will_do(tmp_path, backend):
    write(tmp_path / "a", "dni", 0)
    done = shell(f"$S report {tmp_path}/a --out {tmp_path}/page.html --json", MPLBACKEND=backend, DISPLAY="")
    assert (done.returncode, done.stderr) == (0, "")
    assert "image/svg+xml" in (tmp_path / "page.html").read_text()


def test_a_table_in_a_pipe_is_whole_and_a_narrow_terminal_loses_no_word(tmp_path):
    folders = [write(tmp_path / f"a rather long name {k}", "dni", k) for k in range(2)]
    words = [COMMAND, "report", *map(str, folders), "--out", str(tmp_path / "page.html")]
    for columns in ("0", "20", "80"):
        environment = {**os.environ, "COLUMNS": columns}
        piped = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert piped.returncode == 0, piped.stderr
        assert "validation" not in piped.stdout
        head = next(line for line in piped.stdout.splitlines() if "method" in line)
        for name in ("method", "test error %", "paper (500k it.)", "updates per layer", "s/step × Bprop"):
            assert name in head
        code, said = in_terminal(words, environment)
        assert code == 0
        assert "method" in said
        assert "…" not in said


def test_ctrl_c_while_torch_is_imported(tmp_path):
    """A stand-in for torch, whose import is cut in two by Ctrl-C and goes on as the real one's does with NumPy."""
    (tmp_path / "torch.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    import json\n"
        "except BaseException:\n    print('cut in two')\n"
        "raise ModuleNotFoundError('the rest of torch', name='synthgrad_torch')\n"
    )
    code = "import sys; from synthgrad_lab.cli import main; sys.exit(main(['env']))"
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert "cut in two" not in done.stdout
    assert "the rest of torch" in done.stderr  # nothing was hidden


def test_ctrl_c_before_the_work_begins_is_one_line(tmp_path):
    hook = "import os, signal, sys\nfrom synthgrad_lab import cli\n"
    hook += "import synthgrad_lab.commands.words as a\nkept = a.parse\n"
    hook += "def parse(*given):\n    os.kill(os.getpid(), signal.SIGINT)\n    return kept(*given)\n"
    hook += "a.parse = parse\nsys.exit(cli.main(['list']))"
    done = subprocess.run([sys.executable, "-c", hook], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "synthgrad: interrupted\n")


@pytest.mark.parametrize(("package", "extra"), [("rich", "lab"), ("matplotlib", "lab"), ("zmq", "stages")])
def test_a_package_that_is_missing_is_named_with_what_brings_it(tmp_path, package, extra):
    hook = f"import sys\nsys.modules[{package!r}] = None\nfrom synthgrad_lab import cli\n"
    words = {"zmq": ["bench", "stages", "--stages", "2", "--emulate", "--repeats", "1"]}.get(
        package, ["report", str(tmp_path), "--out", str(tmp_path / "page.html")]
    )
    hook += f"sys.exit(cli.main({words}))"
    done = subprocess.run([sys.executable, "-c", hook], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"synthgrad: {package} is not installed; pip install 'synthgrad[{extra}]' brings it\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "--out", "folder"], "--out: folder is a folder; wanted a file's name"),
        (["report", "--out", "/dev/null"], "--out: /dev/null is a device; wanted a file's name"),
        (["report", "--out", "file/page.html"], "file is a file, not a folder"),
        (["bench", "memory", "--record", "folder"], "--record: folder is a folder"),
        (["demo", "--out", "file"], "--out: file is a file; wanted a folder's name"),
        (["reproduce", "sparse", "--out", "file/runs"], "file is a file, not a folder"),
        (["reproduce", "clocks", "--pages", "folder"], "--pages: folder is a folder"),
    ],
)
def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path, monkeypatch, capsys, words, message):
    from synthgrad_lab.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_link_stays_one_and_names_may_have_spaces_and_umlauts(tmp_path):
    write(tmp_path / "a run, schön", "dni", 0)
    (tmp_path / "link.html").symlink_to(tmp_path / "page δ.html")
    words = ["report", str(tmp_path / "a run, schön"), "--out", str(tmp_path / "link.html")]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([COMMAND, *words], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "link.html").is_symlink()
    assert "<html" in (tmp_path / "page δ.html").read_text()
    assert f"report: {tmp_path}/page δ.html\n".encode() in done.stdout
