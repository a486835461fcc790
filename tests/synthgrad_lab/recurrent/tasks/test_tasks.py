"""Every task's data against what its docstring promises, and its measures against networks whose worth is known."""

import copy
import functools
import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from synthgrad_lab.data import load
from synthgrad_lab.recurrent.recipes import RECIPES
from synthgrad_lab.recurrent.tasks import task_of
from synthgrad_lab.recurrent.tasks.add import floor
from synthgrad_lab.recurrent.tasks.chars import PENN, read

BATCH = 3
LENGTHS = {"copy": 9, "repeat-copy": 9, "seq-mnist": 28, "line-drawing": 10}  # N = 3, R = 1
SEEN = {"add": 2, "delay": 1, "copy": 10, "repeat-copy": 10, "char-lm": 21, "seq-mnist": 28, "line-drawing": 1}
SAID = {"add": 1, "delay": 1, "copy": 9, "repeat-copy": 9, "char-lm": 21, "seq-mnist": 10, "line-drawing": 2}
load_once = functools.cache(load)
every_task = pytest.mark.parametrize("recipe", RECIPES)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("the quick brown fox and a dog;\n" * 20)
    return str(path)


@pytest.fixture
def make(text, monkeypatch):
    monkeypatch.setattr("synthgrad_lab.recurrent.tasks.rows.load", load_once)

    def make(recipe, T=5, seed=0, **changes):
        first = {"task.first": 3} if "copy" in recipe else {}
        usual = {"T": T, "seed": seed, "batch": BATCH, "task.text": text, **first}
        return task_of(replace(RECIPES[recipe](), **{**usual, **changes}))

    return make


def steps(task, count):
    """The next so many steps or more, chunk by chunk, up to a chunk's end (an episode's, where there are any)."""
    chunks = []
    while sum(len(chunk.x) for chunk in chunks) < count or (task.episodic and not chunks[-1].ends):
        chunks.append(task.chunk())
    return chunks


def joined(chunks):
    return [torch.cat([getattr(chunk, name) for chunk in chunks]) for name in ("x", "y", "counts")]


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def logits(probability):
    return torch.logit(probability.double().clamp(1e-12, 1 - 1e-12)).float()


@every_task
def test_chunks_have_the_promised_shapes(make, recipe):
    task = make(recipe, T=4)
    left, before = LENGTHS.get(recipe, 10**6), task.sequences
    assert (task.inputs, task.outputs) == (SEEN[recipe], SAID[recipe])
    for _ in range(5):
        chunk, T = task.chunk(), min(4, left)
        left -= T
        assert chunk.x.shape == (T, BATCH, task.inputs)
        assert chunk.y.shape[:2] == (T, BATCH)
        assert chunk.counts.shape == (T,)
        assert task.losses(torch.zeros(T, BATCH, task.outputs), chunk.y).shape == (T, BATCH)
        assert chunk.ends == (left == 0)
        left = left or LENGTHS[recipe]
    begun = math.ceil(5 / math.ceil(LENGTHS[recipe] / 4)) if task.episodic else 0
    assert task.sequences == before + begun * BATCH


@pytest.mark.parametrize("T", [1, 3, 10, 40])
@every_task
def test_data_does_not_depend_on_where_it_is_cut(make, recipe, T):
    cut, whole = (joined(steps(make(recipe, size), 60)) for size in (T, 60))
    length = min(len(cut[0]), len(whole[0]))
    assert length >= 60
    assert same([part[:length] for part in cut], [part[:length] for part in whole])


@every_task
def test_a_task_goes_on_from_its_state(make, recipe):
    task, other = make(recipe), make(recipe, seed=1)
    steps(task, 12)
    task.chunk()  # an episode is under way
    state = copy.deepcopy(task.state_dict())
    later = joined(steps(task, 70))
    other.load_state_dict(state)
    assert same(joined(steps(other, 70)), later)
    assert other.sequences == task.sequences
    assert not torch.equal(make(recipe, T=9).chunk().x, make(recipe, T=9, seed=1).chunk().x)


@pytest.mark.parametrize(("recipe", "window", "length"), [("delay", 50, "delay"), ("copy", 20, "n")])
def test_a_curriculum_goes_on_from_its_state(make, recipe, window, length):
    task, other = make(recipe), make(recipe)
    for _ in range(window - 1):
        task.told(0.0, 5, True)
    other.load_state_dict(copy.deepcopy(task.state_dict()))
    other.told(0.0, 5, True)
    assert getattr(other, length) == getattr(task, length) + 1
    assert other.recent == []


@pytest.mark.parametrize(("known", "value"), [((), 0.6616), ((10,), 0.6277), ((6,), 0.5192), ((6, 10), 0.4545)])
def test_bounds_of_add_are_conditional_entropies(known, value):
    def entropy(*names):
        found = {}
        for x6, x10, y in product((0, 1), repeat=3):
            p = 0.5 + 0.5 * x6 - 0.25 * x10
            case = {6: x6, 10: x10, "y": y}
            key = tuple(case[name] for name in names)
            found[key] = found.get(key, 0) + (p if y else 1 - p) / 4
        return -sum(p * math.log(p) for p in found.values() if p)

    assert floor(*known) == pytest.approx(entropy(*known, "y") - entropy(*known), abs=1e-12)
    assert floor(*known) == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize("T", [4, 13, 500])
def test_targets_of_add_have_their_probability_across_chunks(make, T):
    x, y, _ = joined(steps(make("add", T, batch=100), 500))
    assert torch.equal(x.sum(-1), torch.ones(x.shape[:2]))
    bits, y = x[..., 0], y[10:]
    assert bits.mean().item() == pytest.approx(0.5, abs=0.02)
    for x6, x10 in product((0, 1), repeat=2):
        found = y[(bits[4:-6] == x6) & (bits[:-10] == x10)].mean().item()
        assert found == pytest.approx(0.5 + 0.5 * x6 - 0.25 * x10, abs=0.02 * (found != 1))


def test_who_knows_add_reaches_the_floor_and_a_constant_does_not(make):
    def knows(x):
        p = torch.full_like(x[..., :1], 0.5)
        p[10:, :, 0] += 0.5 * x[4:-6, :, 0] - 0.25 * x[:-10, :, 0]
        return logits(p)

    for test in (False, True):
        found = make("add").evaluate(knows, test)
        assert found["floor"] == floor(6, 10)
        assert found["cross_entropy"] == pytest.approx(found["floor"], abs=3e-3)
        ignorant = make("add").evaluate(lambda x: logits(torch.full_like(x[..., :1], 0.625)), test)
        assert ignorant["cross_entropy"] == pytest.approx(0.6616, abs=3e-3)


@pytest.mark.parametrize("T", [1, 3, 20])
def test_targets_of_delay_are_late_across_chunks_and_after_growing(make, T):
    task, seen = make("delay", T), torch.zeros(0, BATCH)
    for delay in range(1, 7):
        assert task.delay == delay
        for _ in range(4):
            chunk = task.chunk()
            seen = torch.cat([seen, chunk.x[..., 0]])
            late = seen[: len(seen) - delay][-T:]
            assert torch.equal(chunk.y[T - len(late) :], late)
        for _ in range(50):
            task.told(0.0, T, False)


@pytest.mark.parametrize(("loss", "grown"), [(0.1499, 2), (0.1501, 1)])
def test_delay_grows_below_015_bits_over_50_updates(make, loss, grown):
    task = make("delay")
    for count in range(50):
        assert task.delay == 1, count
        task.told(loss * task.T, task.T, False)
    assert task.delay == grown
    assert task.evaluate(lambda x: torch.zeros_like(x)) == {"longest": grown - 1, "task.bits": 1.0}


def test_a_delay_that_may_not_grow_is_solved_or_not(make):
    task = make("delay", **{"task.first": 5, "task.grow": False})
    assert task.evaluate(lambda x: torch.zeros_like(x))["longest"] == 0
    for _ in range(50):
        task.told(0.0, task.T, False)
    assert task.delay == 5
    assert task.evaluate(lambda x: torch.zeros_like(x))["longest"] == 5


def test_delay_forgets_what_lies_before_the_window(make):
    task = make("delay")
    for loss in [1.0] * 80 + [0.0] * 42:  # 8 of the last 50 cost a bit: 0.16
        task.told(loss, 1, False)
    assert task.delay == 1
    task.told(0.0, 1, False)
    assert task.delay == 2
    for _ in range(49):
        task.told(0.0, 1, False)
    assert task.delay == 2  # the window begins anew


def test_who_knows_delay_pays_nothing(make):
    task = make("delay", **{"task.first": 4})
    assert task.evaluate(lambda x: (x.roll(4, 0) - 0.5) * 60)["bits"] < 1e-6


@pytest.mark.parametrize(
    ("recipe", "R", "asked"), [("copy", 1, 1.0), ("repeat-copy", 1, 0.1), ("repeat-copy", 3, 0.3)]
)
def test_an_episode_of_copy_by_hand(make, recipe, R, asked):
    task = make(recipe, **{"task.bits": 2})
    x, y, counts = task._episode(2, R, 1, torch.Generator().manual_seed(2))
    a, b = x[1:3, 0, :2].tolist()
    assert a != b
    assert {*a, *b} == {0.0, 1.0}
    said = [[*a, 0], [*b, 0]] * R
    silent = [[0, 0, 0]] * 4
    wanted = [[0, 0, 1, 0], [*a, 0, 0], [*b, 0, 0], [0, 0, 0, asked]]
    assert torch.equal(x[:, 0], torch.tensor([*wanted, *[[0.0] * 4] * (2 * R + 1)]))
    assert torch.equal(y[:, 0], torch.tensor([*silent, *said, [0, 0, 1.0]]))
    assert counts.tolist() == [0] * 4 + [1] * (2 * R + 1)
    assert len(x) == task.length(2, R) == 2 * (R + 1) + 3


def solve(task):
    """20 episodes without an error; how long the next one is."""
    for _ in range(20):
        task.told(0.1, 1, False)  # chunks that end no episode are parts of it
        task.told(0.1, 1, True)
    task.episode = []
    return len(joined(steps(task, 1))[0])


def test_copy_grows_n_and_repeat_copy_n_and_r_in_turn(make):
    ladder = [5, 7, 9, 12, 15, 19, 23, 28, 33, 39, 45, 52, 59, 67, 75, 84, 93]
    task = make("repeat-copy", T=100, **{"task.first": 1})
    assert [len(task.chunk().x), *(solve(task) for _ in ladder[1:])] == ladder
    task = make("copy", T=100, **{"task.first": 1})
    assert [len(task.chunk().x), *(solve(task) for _ in range(9))] == [2 * n + 3 for n in range(1, 11)]
    assert (task.n, task.r, task.solved) == (10, 1, [9, 1])


def test_copy_grows_at_015_bits_over_20_episodes_and_only_if_it_may(make):
    for task, loss, grown in (
        (make("copy"), 0.1499, 4),
        (make("copy"), 0.1501, 3),
        (make("copy", **{"task.grow": False}), 0, 3),
    ):
        for _ in range(20):
            assert task.n == 3
            task.told(2 * loss, 2, True)
        assert task.n == grown


def says(n_most):
    """A network that knows copy and repeat-copy for up to so many vectors."""

    def network(x):
        width = x.shape[-1] - 2
        (asked,) = x[:, 0, width + 1].nonzero()[0].tolist()
        out = torch.zeros(*x.shape[:2], width + 1)
        if asked - 1 <= n_most:
            repeats = (len(x) - asked - 2) // (asked - 1)
            out[asked + 1 : -1, :, :width] = x[1:asked, :, :width].repeat(repeats, 1, 1)
            out[-1, :, width] = 1
        return (out - 0.5) * 60

    return network


@pytest.mark.parametrize("recipe", ["copy", "repeat-copy"])
def test_who_knows_copy_pays_nothing_and_is_accurate(make, recipe):
    task = make(recipe, **{"task.first": 2})
    for _ in range(3):
        solve(task)
    found = task.evaluate(says(99))
    N, R, next_N = (4, 1, 5) if recipe == "copy" else (3, 2, 3)
    assert found["bits"] < 1e-6
    assert (found["longest"], found["repeats"], found["accurate"]) == (N, R, next_N)
    assert found["episode_length"] == N * (R + 1) + 3
    assert found[task.measure] == (N if recipe == "copy" else 12)
    assert task.evaluate(says(2))["accurate"] == 2
    assert make(recipe).evaluate(says(99))["longest"] == 0  # nothing trained, nothing solved


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_a_chunk_tells_the_targets_to_come_each_in_its_place(make, ahead):
    task = make("copy", T=3, **{"task.first": 3})  # 9 steps, the last 4 with a target
    task.ahead = ahead
    whole, told = [], []
    for _ in range(3):
        chunk = task.chunk()
        whole.append(chunk.y)
        told.append(chunk.coming)
    y = torch.cat(whole)[5:].transpose(0, 1)
    for coming, said in zip(told, (0, 1, 4), strict=True):
        assert coming.shape == (BATCH, ahead, task.outputs + 1)
        last = max(min(ahead, 4), said)
        assert torch.equal(coming[:, said:last, :-1], y[:, said:last])
        assert coming[..., -1].tolist() == [[float(said <= k < last) for k in range(ahead)]] * BATCH
        assert not coming[:, :said].any()
        assert not coming[:, last:].any()


def test_rows_are_an_image_from_top_to_bottom_with_its_label(make):
    task = make("seq-mnist", T=9)
    for _ in range(2):
        x, y, counts = joined(steps(task, 28))
        images = task.data.train_x.view(-1, 28, 28)
        for b in range(BATCH):
            (found,) = (images == x[:, b]).all(2).all(1).nonzero()
            label = task.data.train_y[found].item()
            assert y[:, b].tolist() == [[float(k == label) for k in range(10)]] * 28
        assert counts.tolist() == [0] * 27 + [1]


def test_the_error_of_seq_mnist_is_of_the_last_step(make):
    def always_3(x):
        out = torch.zeros(len(x), x.shape[1], 10)
        out[:-1, :, 5], out[-1, :, 3] = 1, 1
        return out

    task = make("seq-mnist")
    for kind, y in (("validation", task.data.validation_y), ("test", task.data.test_y)):
        found = task.evaluate(always_3, kind == "test")
        assert found == {f"{kind}_error": pytest.approx(100 * (y != 3).float().mean().item(), abs=1e-4)}


def test_lines_lead_to_7_targets_with_feedback_on_every_second_step(make):
    x, y, counts = joined(steps(make("line-drawing", T=3, batch=60), 10))
    assert counts.tolist() == [0, 1] * 5
    assert not x[1:].any()
    cues = x[0, :, 0]
    assert sorted({round(cue, 4) for cue in cues.tolist()}) == [round(k / 3 - 1, 4) for k in range(7)]
    angle = (cues + 1) / 2 * math.pi
    for t in range(10):
        torch.testing.assert_close(y[t], (t + 1) / 10 * torch.stack([angle.cos(), angle.sin()], dim=1))


def test_who_knows_the_lines_pays_nothing_and_who_stays_pays_the_mean_square(make):
    def knows(x):
        angle = (x[0, :, 0] + 1) / 2 * math.pi
        return torch.arange(1, 11).view(-1, 1, 1) / 10 * torch.stack([angle.cos(), angle.sin()], dim=1)

    assert make("line-drawing").evaluate(knows)["mse"] < 1e-12
    stays = make("line-drawing").evaluate(lambda x: torch.zeros(*x.shape[:2], 2))
    assert stays["mse"] == pytest.approx(sum(t * t for t in range(1, 11)) / 1000)


def parts(found):
    return ["".join(found.alphabet[n] for n in part.tolist()) for part in (found.train, found.valid, found.test)]


def test_a_text_is_split_in_its_order(tmp_path, capsys):
    path, written = tmp_path / "a.txt", "".join(chr(97 + k % 26) for k in range(996)) + "\r\né\n"
    path.write_bytes(b"\xef\xbb\xbf" + written.encode())
    found = parts(read(path))
    assert [len(part) for part in found] == [900, 50, 50]
    assert "".join(found) == written
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("byte", "encoding", "meant"), [(b"\x80", "cp1252", "€"), (b"\x81", "latin-1", "\x81")])
def test_a_text_that_is_not_utf8_is_read_all_the_same(tmp_path, capsys, byte, encoding, meant):
    (tmp_path / "a.txt").write_bytes(b"a" * 99 + byte)
    assert "".join(parts(read(tmp_path / "a.txt"))) == "a" * 99 + meant
    assert capsys.readouterr().err == f"{tmp_path / 'a.txt'} is not UTF-8; read as {encoding}\n"


def test_a_text_that_is_missing_empty_or_too_short_is_refused(tmp_path, make):
    path = tmp_path / "a.txt"
    with pytest.raises(FileNotFoundError, match=r"text=.*a.txt: no such file or folder"):
        read(path)
    for content, left in (("", 0), ("a" * 20, 1)):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"text=.*a.txt: too short; its smallest part has {left} characters"):
            read(path)
    with pytest.raises(ValueError, match=r"char-lm wants text=FILE, or text=FOLDER with Penn Treebank's ptb"):
        make("char-lm", **{"task.text": None})


def test_a_folder_is_read_as_penn_treebank(tmp_path, capsys, monkeypatch):
    written = {"train": " the <unk> \n of N \n", "valid": "  no\n", "test": " on\n\n"}
    for kind, (name, *_) in PENN.items():
        with pytest.raises(FileNotFoundError, match=f"no {name}; a folder must hold .*train.txt.*valid.*test.txt"):
            read(tmp_path)
        (tmp_path / name).write_text(written[kind])
    capsys.readouterr()
    assert parts(read(tmp_path)) == ["the <unk>\nof N\n", "no\n", "on\n\n"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    for line, (name, md5, _) in zip(said, PENN.values(), strict=True):
        assert name in line
        assert f"not {md5}): do not compare its bits with others'" in line
        found = line.partition("(MD5 ")[2][:32]
        monkeypatch.setitem(PENN, name[4:].partition(".")[0], (name, found, 3))
    with pytest.raises(ValueError, match=r"ptb.train.txt gives 15 symbols, not 3"):
        read(tmp_path)
    assert capsys.readouterr().err == ""


def test_characters_are_asked_for_one_step_ahead_round_and_round(make):
    task = make("char-lm", T=50)
    train = task.text.train
    x, y, _ = joined(steps(task, 2 * len(train)))
    symbols = x.argmax(-1)
    assert torch.equal(x.sum(-1), torch.ones(symbols.shape))
    assert torch.equal(symbols[1:], y[:-1])
    assert torch.equal(symbols[len(train) :], symbols[: -len(train)])
    twice = torch.cat([train, train]).unfold(0, len(train), 1)
    begins = [(twice == symbols[: len(train), b]).all(1).any().item() for b in range(BATCH)]
    assert begins == [True] * BATCH


def test_bits_per_character_of_who_knows_and_of_who_guesses(tmp_path, make):
    (tmp_path / "ab.txt").write_text("ab" * 2000)
    task = make("char-lm", **{"task.text": str(tmp_path / "ab.txt")})
    for kind in ("validation", "test"):
        key = f"{kind}_bits_per_character"
        assert task.evaluate(lambda x: (1 - x) * 60, kind == "test")[key] < 1e-6
        assert task.evaluate(lambda x: x * 0, kind == "test")[key] == pytest.approx(1)
