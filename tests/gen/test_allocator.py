"""What a forward frees stays with the process."""

import subprocess
import sys

# as in the engine: another thread than the main one allocates
PROGRAM = """
import resource, threading
import torch
from gen.allocator import keep_freed_memory

if {keep}:
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def forward():
    return [torch.empty(3 << 20).fill_(1.0) for _ in range(12)]  # 12 MB each

def forwards():
    for _ in range(3):
        forward()
    before = faults()
    for _ in range(10):
        forward()
    print(faults() - before)

thread = threading.Thread(target=forwards)
thread.start()
thread.join()
"""


def page_faults(keep: bool) -> int:
    program = PROGRAM.format(keep=keep)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_ten_forwards_of_kept_memory_fault_less_than_one_of_new_memory() -> None:
    assert page_faults(keep=True) < page_faults(keep=False) / 10
