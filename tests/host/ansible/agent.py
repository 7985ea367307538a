# SPDX-License-Identifier: MIT OR Apache-2.0
"""How Ansible reaches the emulated host: through whoever listens at the socket $TTVM_AGENT (tests/host/cases/unattended.rs).

One JSON object per line, each way; what is binary is in base64:

    {"run": "…", "input": "…"}     {"status": 0, "stdout": "…", "stderr": "…"}
    {"write": "/path", "data": "…"}     {"status": 0, "stdout": "", "stderr": ""}
"""

import json
import os
import shlex
import socket
from base64 import b64decode, b64encode

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
    name: agent
    short_description: the agent of the emulated host
    description: Runs commands and writes files as root.
    author: ttvm
    options: {}
"""


class Connection(ConnectionBase):
    transport = "agent"
    has_pipelining = False
    _lines = None

    def _connect(self):
        if self._lines is None:
            with socket.socket(socket.AF_UNIX) as agent:
                agent.connect(os.environ["TTVM_AGENT"])
                self._lines = agent.makefile("rwb")
        self._connected = True
        return self

    def _ask(self, **question):
        self._connect()
        self._lines.write(json.dumps(question).encode() + b"\n")
        self._lines.flush()
        line = self._lines.readline()
        if not line:
            raise AnsibleConnectionFailure("the emulated host does not answer")
        answer = json.loads(line)
        return answer["status"], b64decode(answer["stdout"]), b64decode(answer["stderr"])

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._ask(run=cmd, input=b64encode(in_data or b"").decode())

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        with open(in_path, "rb") as file:
            status, _, errors = self._ask(write=out_path, data=b64encode(file.read()).decode())
        if status:
            raise AnsibleError(f"{out_path}: {errors.decode()}")

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        status, data, errors = self._ask(run=f"cat -- {shlex.quote(in_path)}", input="")
        if status:
            raise AnsibleError(f"{in_path}: {errors.decode()}")
        with open(out_path, "wb") as file:
            file.write(data)

    def reset(self):
        self.close()

    def close(self):
        if self._lines is not None:
            self._lines.close()
        self._lines = None
        self._connected = False
