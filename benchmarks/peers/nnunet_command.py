"""Runs one of nnU-Net's commands with the trainer that stops by a clock.

    python nnunet_command.py nnUNetv2_train 1 2d 0 -tr TimedTrainer

nnU-Net finds trainers of others through nnUNet_extTrainer, but imports all of its own before, and
one of them needs torchvision, whose CPU build is not to be had everywhere. So the trainer is put
into the module where nnU-Net looks first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import entry_points


def main() -> None:
    """Takes the name of the command from the arguments and leaves it the rest."""
    from timed_trainer import TimedTrainer

    first_place = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    first_place.TimedTrainer = TimedTrainer
    del sys.argv[0]
    (command,) = entry_points(group="console_scripts", name=sys.argv[0])
    command.load()()


# nnU-Net starts processes that import this file again.
if __name__ == "__main__":
    main()
