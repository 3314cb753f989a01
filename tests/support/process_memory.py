# SPDX-License-Identifier: BSD-3-Clause
"""Which bytes a process has in its memory, and in a core dump of it."""

import dataclasses
import errno
import os
import re
import shutil
import struct

import qluks


PAGE = os.sysconf("SC_PAGESIZE")


@dataclasses.dataclass(frozen=True)
class Mapping:
    start: int
    end: int
    permissions: str
    name: str
    flags: frozenset

    def is_for_secrets(self):
        """Locked into memory, and left out of core dumps."""
        return {"lo", "dd"} <= self.flags

    def __str__(self):
        return f"{self.start:x}-{self.end:x} {self.permissions} {self.name} [{' '.join(sorted(self.flags))}]"


def mappings(pid):
    found = []
    with open(f"/proc/{pid}/smaps") as smaps:
        for line in smaps:
            if header := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)$", line):
                start, end, permissions, name = header.groups()
            elif line.startswith("VmFlags:"):
                found.append(Mapping(int(start, 16), int(end, 16), permissions, name, frozenset(line.split()[1:])))
    return found


def occurrences(content, needle):
    at = content.find(needle)
    while at >= 0:
        yield at
        at = content.find(needle, at + 1)


def present_runs(pagemap, mapping):
    """[(address, length)] of the pages that are in memory or in swap: most of a thread's stack never was."""
    pages = (mapping.end - mapping.start) // PAGE
    entries = struct.unpack(f"={pages}Q", os.pread(pagemap, 8 * pages, mapping.start // PAGE * 8))
    runs = []
    for i, entry in enumerate(entries):
        if entry >> 62 == 0:
            continue
        address = mapping.start + i * PAGE
        if runs and sum(runs[-1]) == address:
            runs[-1] = (runs[-1][0], runs[-1][1] + PAGE)
        else:
            runs.append((address, PAGE))
    return runs


def read_pages(memory, address, length):
    """(address, bytes) of what can be read of them: glibc 2.42 has guard pages inside of the mapping of a stack."""
    while length > 0:
        try:
            content = os.pread(memory, length, address)
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            content = b""
        if content:
            yield address, content
        done = len(content) or PAGE
        address += done
        length -= done


def find(pid, needles):
    """[(name, Mapping, address)] for each place where one of `needles` (name: bytes) is in the memory of a process."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as map:
        for mapping in mappings(pid):
            if "r" not in mapping.permissions or mapping.name in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
                continue
            for run in present_runs(map.fileno(), mapping):
                for address, content in read_pages(memory.fileno(), *run):
                    for name, needle in needles.items():
                        found += [(name, mapping, address + at) for at in occurrences(content, needle)]
    return found


def find_in_file(path, needles):
    with open(path, "rb") as f:
        content = f.read()
    return [name for name, needle in needles.items() if needle in content]


def core_dump(test, pid):
    """The path of a core dump that gdb takes of the process, registers and all; skips the test if there is no gdb."""
    if shutil.which("gcore") is None:
        test.skipTest("gcore is not installed (Debian: gdb)")
    qluks.run("gcore", "-o", test.path("core"), pid)
    return test.path(f"core.{pid}")


def status_kib(pid, name):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(rf"{name}:\s+(\d+) kB", status.read()).group(1))


def locked_kib(pid):
    return status_kib(pid, "VmLck")


def resident_kib(pid):
    return status_kib(pid, "VmRSS")


def resident_kib_most(pid):
    return status_kib(pid, "VmHWM")
