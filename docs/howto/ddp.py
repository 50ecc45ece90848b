"""Data parallel training on several processes: torchrun --nproc-per-node 2 ddp.py"""

import os

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import torchopt_course as optim

distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
rank, size = distributed.get_rank(), distributed.get_world_size()
device = torch.device("cpu")
if torch.cuda.is_available():
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)

torch.manual_seed(0)
inputs = torch.randn(256, 10, device=device)
targets = inputs.sum(dim=1, keepdim=True)
model = DistributedDataParallel(torch.nn.Linear(10, 1, device=device))
optimizer = optim.Adam(model.parameters(), lr=0.05)

for _ in range(100):
    mine = slice(rank, None, size)  # each process takes its share of the rows
    optimizer.zero_grad()
    loss = (model(inputs[mine]) - targets[mine]).square().mean()
    loss.backward()  # here the gradients are averaged over the processes
    optimizer.step()  # the same step on each

loss = loss.detach()
distributed.all_reduce(loss)
if rank == 0:
    print(f"{size} processes, loss {loss.item() / size:.6f}")
distributed.destroy_process_group()
