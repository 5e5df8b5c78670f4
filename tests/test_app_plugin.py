"""The local plugin: a step whose process is killed is reported, and the others are done."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest
from nipype.interfaces.base import TraitedSpec, traits
from nipype.pipeline import engine as pe

from bids_app.plugin import SturdyMultiProcPlugin, how_ended
from bids_app.progress import explain
from qsmref.interfaces.base import InputSpec, Interface


class _VictimInput(InputSpec):
    killed = traits.Bool(mandatory=True, desc="whether it is killed")
    signal = traits.Int(int(signal.SIGKILL), usedefault=True, desc="by which signal")
    previous = traits.Bool(desc="of the step before it")


class _VictimOutput(TraitedSpec):
    survived = traits.Bool()


class Victim(Interface):
    """A step that may be killed like one that takes too much memory."""

    input_spec = _VictimInput
    output_spec = _VictimOutput

    def _compute(self, folder):
        if self.inputs.killed:
            os.kill(os.getpid(), self.inputs.signal)
        self._results["survived"] = True


def test_killed_worker_does_not_hang_the_graph(tmp_path):
    workflow = pe.Workflow(name="wf", base_dir=str(tmp_path))
    workflow.config["execution"].update(poll_sleep_duration="0.05", crashdump_dir=str(tmp_path))
    names = {"first": False, "bad": True, "second": False}
    for name, killed in names.items():
        workflow.add_nodes([pe.Node(Victim(killed=killed), name=name)])
    after = pe.Node(Victim(killed=False), name="after")
    workflow.connect(workflow.get_node("second"), "survived", after, "previous")
    events = []
    arguments = {
        "n_procs": 2,
        "mp_context": "forkserver",
        "status_callback": lambda node, status: events.append((node.name, status)),
    }
    plugin = SturdyMultiProcPlugin(plugin_args=arguments)
    with pytest.raises(RuntimeError, match="terminated abruptly"):
        workflow.run(plugin=plugin, plugin_args=arguments)
    ended = {name for name, status in events if status == "end"}
    assert ended == {"first", "second", "after"}
    assert ("bad", "exception") in events


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "probably killed for lack of memory"),
        (signal.SIGINT, "ended by SIGINT: somebody or another program asked it to"),
        (signal.SIGSEGV, "ended by SIGSEGV: an error of a library"),
    ],
)
def test_the_signal_that_ended_a_worker_is_told(tmp_path, number, words):
    workflow = pe.Workflow(name="wf", base_dir=str(tmp_path))
    workflow.config["execution"].update(poll_sleep_duration="0.05", crashdump_dir=str(tmp_path))
    workflow.add_nodes([pe.Node(Victim(killed=True, signal=int(number)), name="bad")])
    told = []

    def listen(node, status):
        if status == "exception":
            told.append(explain(node.last_words)["sentence"])

    arguments = {"n_procs": 1, "mp_context": "forkserver", "status_callback": listen}
    plugin = SturdyMultiProcPlugin(plugin_args=arguments)
    with pytest.raises(RuntimeError, match="terminated abruptly"):
        workflow.run(plugin=plugin, plugin_args=arguments)
    assert len(told) == 1 and words in told[0]


def test_a_process_that_gave_up_by_itself_is_told_with_its_status():
    ended = [SimpleNamespace(exitcode=None), SimpleNamespace(exitcode=3)]
    assert "with status 3" in explain("".join(how_ended(ended)))["sentence"]
    assert how_ended([SimpleNamespace(exitcode=0)]) == []
    # Signals without a name have a number.
    assert how_ended([SimpleNamespace(exitcode=-63)]) == ["WorkerEnded: signal 63\n"]
