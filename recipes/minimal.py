"""The whole of a training on one page: `python recipes/minimal.py`, then `tensorboard --logdir runs`."""

import gzip
import urllib.request
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

import torchopt_course as optim

SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"  # 70,000 pictures of clothes, 30 MB
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt install dataset-fashion-mnist


def read(name: str, header: int) -> torch.Tensor:
    """The bytes of one of the four files, downloaded to data/ the first time."""
    path = DEBIAN / name if (DEBIAN / name).exists() else Path("data", name)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(urllib.request.urlopen(f"{SOURCE}/{name}").read())
    return torch.frombuffer(bytearray(gzip.decompress(path.read_bytes())), dtype=torch.uint8, offset=header)


def load(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, rows x 784 grey values with mean 0 and variance 1, and which of ten kinds they are."""
    pictures = read(f"{part}-images-idx3-ubyte.gz", 16).view(-1, 784).float() / 255
    return (pictures - 0.286) / 0.353, read(f"{part}-labels-idx1-ubyte.gz", 8).long()


def main(epochs: int = 5, batch_size: int = 128) -> float:
    """Train, and return the accuracy on the test pictures."""
    torch.manual_seed(0)  # the same run every time
    (inputs, targets), (test_inputs, test_targets) = load("train"), load("t10k")
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = optim.Adam(model.parameters())
    batches = -(-len(inputs) // batch_size)
    scheduler = optim.CyclicLR(optimizer, 1e-4, 3e-3, step_size_up=epochs * batches // 2)
    board = SummaryWriter("runs/minimal")

    for epoch in range(epochs):
        for number, rows in enumerate(torch.randperm(len(inputs)).split(batch_size)):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            scheduler.step()
            board.add_scalar("loss", loss, epoch * batches + number)
        with torch.no_grad():
            accuracy = float((model(test_inputs).argmax(dim=1) == test_targets).float().mean())
        board.add_scalar("accuracy", accuracy, (epoch + 1) * batches)
        print(f"epoch {epoch + 1}: loss {loss:.3f}, test accuracy {accuracy:.1%}")
    board.close()
    return accuracy


if __name__ == "__main__":
    main()
