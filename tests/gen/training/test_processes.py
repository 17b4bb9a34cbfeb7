"""Two processes that share a step do what one does with both their batches."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.nn import functional as F

from gen.training.loop import LoopConfig, Trained, descend, make_optimizer

PROGRAM = """
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.nn import functional as F

from gen.training.loop import LoopConfig, Trained, descend, make_optimizer

accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
folder = Path(sys.argv[1])
config = LoopConfig(data=folder, output=folder, num_steps=3, batch_size=2, learning_rate=0.1,
                    num_warmup_steps=0, max_grad_norm=1e9)
torch.manual_seed(0)
network = torch.nn.Linear(4, 1)
trained = Trained(network, make_optimizer(network, config))
trained.module, trained.optimizer = accelerator.prepare(network, trained.optimizer)
rank = accelerator.process_index
for step in range(3):
    generator = torch.Generator().manual_seed(10 * step + rank)
    inputs = torch.randn(2, 4, generator=generator)
    # past the wrapper, as recipes do
    loss = F.mse_loss(network(inputs), inputs.sum(1, keepdim=True))
    descend(accelerator, trained, loss, config, step)
save_file(network.state_dict(), folder / f"{rank}.safetensors")
"""


def test_gradients_are_shared(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    subprocess.run(
        [sys.executable, *command, str(program), str(tmp_path)],
        check=True,
        capture_output=True,
        timeout=240,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    ours, theirs = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    config = LoopConfig(
        data=tmp_path, output=tmp_path, num_steps=3, batch_size=4, learning_rate=0.1,
        num_warmup_steps=0, max_grad_norm=1e9,
    )  # fmt: skip
    torch.manual_seed(0)
    network = torch.nn.Linear(4, 1)
    trained = Trained(network, make_optimizer(network, config))
    accelerator = Accelerator(cpu=True)
    for step in range(3):
        batches = [
            torch.randn(2, 4, generator=torch.Generator().manual_seed(10 * step + rank))
            for rank in range(2)
        ]
        inputs = torch.cat(batches)
        loss = F.mse_loss(network(inputs), inputs.sum(1, keepdim=True))
        descend(accelerator, trained, loss, config, step)
    for name, wanted in network.state_dict().items():
        assert torch.equal(ours[name], theirs[name])
        assert torch.allclose(ours[name], wanted, atol=1e-6)
