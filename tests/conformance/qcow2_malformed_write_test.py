# SPDX-License-Identifier: BSD-3-Clause
"""The malformed images of qcow2_malformed_test.py, opened for writing and written to.

An image is refused, or served read-only and not touched, or QEMU finds it no worse than before: never a write behind
the end of the container, never more errors.  QLUKS_LONG takes all of them, else each seventeenth.
"""

import collections
import json
import os
import subprocess

import qcow2_malformed_test as malformed
import qluks

WRITE_GUEST = os.path.join(os.environ["QLUKS_BUILD"], "write_guest")
STEP = 1 if os.environ.get("QLUKS_LONG") else 17
ROOM = qluks.MIB
SECONDS = 60 if qluks.PRELOAD else 10


class Malformed(malformed.Malformed):
    """Inherits how the images are made, and which."""

    count = 0

    def errors(self, path):
        """What qemu-img check counts; None if it cannot."""
        done = qluks.run("qemu-img", "check", "-f", "qcow2", "--output=json", path, check=False)
        if done.returncode not in (0, 2, 3):
            return None
        found = json.loads(done.stdout)
        return found.get("corruptions", 0) + found.get("check-errors", 0)

    def compare(self, name, content, tally):
        self.count += 1
        if self.count % STEP:
            return
        room = 0 if name.startswith("size of file") else ROOM
        path = self.write("malformed.qcow2", content + bytes(room))
        before = self.errors(path)
        done = subprocess.run([WRITE_GUEST, "--hostile", "--operations", "40", "--seed", str(self.count), path],
                              capture_output=True, timeout=SECONDS, env=qluks.environment())
        said = done.stderr.decode()
        with open(path, "rb") as f:
            after = f.read()
        self.assertEqual(len(after), len(content) + room)
        if done.returncode == 1 and "differs" not in said:
            tally["read-only" if "read-only: " in said else "refused"] += 1
            self.assertEqual(after[:len(content)], content, said)
            return
        self.assertEqual(done.returncode, 0, said)
        if before is None:
            tally["written, QEMU does not check it"] += 1
            return
        tally["written"] += 1
        now = self.errors(path)
        self.assertIsNotNone(now)
        self.assertLessEqual(now, before, said)


if __name__ == "__main__":
    qluks.main()
