"""The local plugin: a step whose process is killed is reported, and the others are done."""

from __future__ import annotations

import os
import signal

import pytest
from nipype.interfaces.base import TraitedSpec, traits
from nipype.pipeline import engine as pe

from bids_app.plugin import SturdyMultiProcPlugin
from qsmref.interfaces.base import InputSpec, Interface


class _VictimInput(InputSpec):
    killed = traits.Bool(mandatory=True, desc="whether the kernel kills it")
    previous = traits.Bool(desc="of the step before it")


class _VictimOutput(TraitedSpec):
    survived = traits.Bool()


class Victim(Interface):
    """A step that may be killed like one that takes too much memory."""

    input_spec = _VictimInput
    output_spec = _VictimOutput

    def _compute(self, folder):
        if self.inputs.killed:
            os.kill(os.getpid(), signal.SIGKILL)
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
