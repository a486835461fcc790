"""Recurrent settings that are refused."""

import math

import pytest

from synthgrad_lab.recurrent.settings import Settings
from synthgrad_lab.running.settings import vary

TRACES = "model.traces needs a regression that sees the whole state: method=dni or dni-aux"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"T": 0}, "T=0: it must be a number of at least 1"),
        ({"batch": 0}, "batch=0: it must be a number of at least 1"),
        ({"optimizer.lr": math.nan}, "lr=nan: it must be a number of at least 0"),
        ({"optimizer.lr": math.inf}, "lr=inf: it must be a number of at least 0"),
        ({"optimizer.clip": 0.0}, "clip=0.0: it must be a number of at least 1e-09"),
        ({"model.gamma": 1.5}, "gamma=1.5: it must be from 0 to 1"),
        ({"optimizer.warm_up": 1.5}, "warm_up=1.5: it must be from 0 to 1"),
        ({"optimizer.read_out_lr": -1.0}, "read_out_lr=-1.0: it must be a number of at least 0"),
        ({"model.lam": -0.1}, "lam=-0.1: it must be from 0 to 1"),
        ({"model.beta1": 1.0}, "beta1=1.0: it must be from 0 to 0.999999"),
        ({"per": "episode"}, "per=episode: add is a stream without end; per=chunk"),
        ({"model.hidden_only": True}, "only an LSTM has a cell beside its hidden state, not cell=rnn"),
        ({"model.traces": 0.5, "method": "bptt"}, TRACES),
        ({"model.traces": 0.5, "model.form": "critic"}, TRACES),
        ({"model.traces": 0.5, "model.sees": 0.5}, TRACES),
        ({"model.traces": 0.5, "method": "bp-lambda"}, TRACES),
        (
            {"method": "cdni", "model.context": True},
            "M's context is the targets to come, not inputs; model.context=false",
        ),
        ({"model.scale": 0.1, "method": "bp-lambda"}, "method=bp-lambda mixes by lam alone: model.scale=1"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        vary(Settings(), changes)
