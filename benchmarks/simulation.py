"""Milliseconds that a simulated micrograph costs: tiles as trainings draw them, and whole micrographs.

    python benchmarks/simulation.py [--device auto] [--tiles 256] [--batches 1 16 64] [--micrographs 4]

A tile is 512 x 512 pixels at the picker's scale with all that `SimulationRanges` puts in: particles,
contaminants, ice, CTF, detector. Its two parts are timed apart: the plan, numbers drawn on the CPU by one
thread, which other processes can make ahead; and the pictures, made on the device, several at a time, and
brought to the CPU. Structures are made and projected before, as a training that goes on for hours has them at
hand. A first round warms up and is not counted; the median of rounds is printed. On a CPU its own time is
counted, of all threads, so that other work on the machine is not.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch

from emflow.devices import choose_device
from emflow.simulation import ParticleLibrary, SimulationRanges, draw_scene
from emflow.simulation.imaging import image_plans
from emflow.simulation.plan import ScenePlan, draw_plan
from emflow.training.picker import RANGES

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiles", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--micrographs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {arguments.threads} thread"
    print(f"{platform.node()}, torch {torch.__version__}, {name}\n")
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    library = ParticleLibrary("train", procedural=60)
    plans, spent = planned(library, arguments.tiles)
    print(f"| what | at a time | {'ms' if device.type == 'cuda' else 'CPU ms'} each |\n|---|---|---|")
    print(f"| plan of a tile, on the CPU | 1 | {spent:.2f} |")
    for batch in arguments.batches:
        rounds = [pictures(plans, batch, library, device, clock) for _ in range(ROUNDS + 1)][1:]
        print(f"| pictures of a tile, on {device} | {batch} | {statistics.median(rounds):.2f} |", flush=True)
    spent = micrograph(library, arguments.micrographs, device, clock)
    print(f"| micrograph of 4096 x 4096 at 1 A, plan and pictures | 1 | {spent:.0f} |")
    if device.type == "cuda":
        print(f"\npeak memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


def planned(library: ParticleLibrary, count: int) -> tuple[list[ScenePlan], float]:
    """Return plans of tiles that share a canvas, and the milliseconds that one takes."""
    plans: list[ScenePlan] = []
    start = 0.0
    for first in (0, count):  # the first round makes the structures
        start = time.process_time()
        plans += [
            draw_plan(seed, shape=(512, 512), library=library, ranges=RANGES)
            for seed in range(first, first + count)
        ]
    spent = 1e3 * (time.process_time() - start) / count
    canvases = [plan.canvas for plan in plans]
    usual = statistics.mode(canvases)
    return [plan for plan in plans if plan.canvas == usual][:count], spent


def pictures(
    plans: list[ScenePlan],
    batch: int,
    library: ParticleLibrary,
    device: torch.device,
    clock: Callable[[], float],
) -> float:
    """Return the milliseconds that the pictures of a tile take."""
    start = clock()
    for first in range(0, len(plans), batch):
        image_plans(plans[first : first + batch], library, device=device)
    return 1e3 * (clock() - start) / len(plans)


def micrograph(
    library: ParticleLibrary, count: int, device: torch.device, clock: Callable[[], float]
) -> float:
    """Return the milliseconds that a whole micrograph takes, in the median."""
    spent = []
    for seed in range(count + 1):
        start = clock()
        draw_scene(
            seed,
            shape=(4096, 4096),
            library=library,
            ranges=SimulationRanges(),
            pixel_size_angstrom=1.0,
            device=device,
        )
        spent.append(1e3 * (clock() - start))
    return statistics.median(spent[1:])


if __name__ == "__main__":
    main()
