"""What a process remembers of its forks, without forking."""

import os
import threading

import pytest
import torch

from fashion_retrieval._utils import forks
from fashion_retrieval.errors import UnsupportedError

MAIN = threading.main_thread()


def test_a_fork_of_a_fork_inherits_what_was_locked_at_the_first(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(forks, "_home", os.getpid())
    monkeypatch.setattr(forks, "_alone", True)
    monkeypatch.setattr(forks.threading, "enumerate", lambda: [MAIN, threading.Thread(name="other")])
    forks._remember_threads()
    monkeypatch.setattr(forks.threading, "enumerate", lambda: [MAIN])
    monkeypatch.setattr(os, "getpid", lambda: -1)  # the first fork
    with pytest.raises(UnsupportedError, match=r"^computing here would hang"):
        forks.check_fork()
    forks._remember_threads()
    monkeypatch.setattr(os, "getpid", lambda: -2)  # its own
    with pytest.raises(UnsupportedError, match=r"^computing here would hang"):
        forks.check_fork()


def test_another_fork_of_the_same_process_is_judged_anew(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(forks, "_home", os.getpid())
    monkeypatch.setattr(forks, "_alone", False)  # at the fork before
    monkeypatch.setattr(forks.threading, "enumerate", lambda: [MAIN])
    forks._remember_threads()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    forks.check_fork()
