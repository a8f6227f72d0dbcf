#!/usr/bin/env python3
"""Climb the ConvNeXt modernization roadmap: plan, train, judge and draw a ladder of design steps.

Examples:
  python run_ladder.py --base resnet50                      train the default ladder and report it
  python run_ladder.py verify                               our multiply-adds beside the paper's, both bases
  python run_ladder.py check my_ladder.yaml --steps-module my_steps.py
  python run_ladder.py plan --base resnet50 --recipe imagenet --device a100 --jobs 8 --price 1.50
  python run_ladder.py report --base resnet50 --published   the paper's own numbers, drawn the same way
  python run_ladder.py compare --base resnet50              verdicts on all steps
  python run_ladder.py compare --base resnet50 --step depthwise_conv
  python run_ladder.py measure --base resnet50              what each rung costs in time and memory
  python run_ladder.py models --measure                     the paper's Table 1 and Figure 1, timed on this machine
  python run_ladder.py robustness --base resnet50           accuracy under attacks and corruptions, for report
  python run_ladder.py export --base resnet50               trained weights, for timm
"""

import argparse
import io
import os
import sys
from pathlib import Path

from roadmap.common.errors import UserError
from roadmap.common.process_group import my_rank

ACTIONS = {
    "run": "plan, launch, wait with live progress, report (the default)",
    "verify": "build every rung and hold its multiply-adds against the paper's; exit 1 on any drift",
    "check": "hold a ladder's steps, your own too, to what a step must keep; exit 1 where one does not",
    "plan": "what would run: rungs, seeds, cost, time, money, and what is already done",
    "diff": "the settings in which --recipe differs from the paper's, or from the recipe --against",
    "launch": "start the jobs and return",
    "status": "where every run stands",
    "cancel": "stop what is running; it goes on from its checkpoints when launched again",
    "report": "tables and figure from the run folders",
    "measure": "time and memory of every rung, side by side on this machine, beside its multiply-adds",
    "models": "the paper's Table 1, counted again from timm's networks, and its Figure 1",
    "calibrate": "which precision, compiler setting and number of runs at a time is fastest on this machine",
    "export": "trained weights with their configuration: safetensors that timm and roadmap.load_model load",
    "robustness": "attack and corrupt what the trained networks see; report and compare then tell of it",
    "compare": "verdicts on the steps; with --step everything about one of them",
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    listing = "\n".join(f"  {name:<11}{does}" for name, does in ACTIONS.items())
    parser = argparse.ArgumentParser(
        prog="run_ladder.py",
        description=f"{__doc__}\nActions:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", default="run", metavar="ACTION", help="see above; left out: run")
    parser.add_argument("ladder", nargs="?", metavar="LADDER", help="check: a ladder's name or file, as --steps")
    parser.add_argument("--base", help="where the ladder starts: resnet50, resnet200, vgg16, mobilenet_v2")
    parser.add_argument("--steps", metavar="NAME|FILE", help="the ladder (default: the paper's, or that of the base)")
    parser.add_argument("--steps-module", nargs="+", type=Path, metavar="FILE", help="Python files of your own steps")
    parser.add_argument(
        "--match", nargs="?", const="base", metavar="TO", help="FLOPs-matched: to base (default), previous or 1e9 MACs"
    )
    parser.add_argument(
        "--design", nargs="+", metavar="NAME", help="ladder (default), leave-one-out, add-one, orders, pairs X Y"
    )
    parser.add_argument("--samples", metavar="N", help="--design orders: how many (default: 8)")
    parser.add_argument(
        "--references",
        nargs="*",
        metavar="NAME",
        help="train these beside: resnext50, swin_tiny, swin_small, swin_base",
    )
    parser.add_argument("--recipe", default="fashion", metavar="NAME|FILE", help="how to train (default: fashion)")
    parser.add_argument("--seeds", nargs="+", metavar="N", help="one run a rung for each (default: the recipe's)")
    parser.add_argument("--only", nargs="+", metavar="RUNG", help="these rungs alone; models: these models")
    parser.add_argument("--until", metavar="RUNG", help="the rungs up to this one")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the recipe's data set lies")
    parser.add_argument("--weights", metavar="PLACE", help="fine-tuning: what 'export' wrote, a file or timm:NAME")
    parser.add_argument("--validate", action="store_true", help="test on the recipe's validation images, to choose it")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="run folders (default: runs)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="reports (default: out/BASE-RECIPE[-LADDER][-DESIGN]), exports"
    )
    parser.add_argument("--executor", default="local", metavar="NAME", help="local (default), slurm or debug")
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="what a run's job asks for (see README)")
    parser.add_argument("--jobs", metavar="N", help="jobs at once (default: one a GPU, else one a core; slurm: all)")
    parser.add_argument("--runs-per-job", metavar="N", help="slurm: runs that share a job (default: 1)")
    parser.add_argument("--max-retries", metavar="N", help="new tries of a killed run (default: 2)")
    parser.add_argument(
        "--tensorboard", action="store_true", help="run, launch: curves for TensorBoard, in runs/tensorboard"
    )
    parser.add_argument(
        "--logger", nargs="+", metavar="MODULE:F", help="run, launch: functions told how runs go (see README)"
    )
    parser.add_argument("--dry-run", action="store_true", help="run, launch: print the Slurm script and submit nothing")
    parser.add_argument("--device", metavar="NAME", help="plan: for GPUs of this kind, by data sheet (a100, h100, ...)")
    parser.add_argument("--measure", action="store_true", help="plan: time a few networks here first; models: all")
    parser.add_argument("--price", metavar="P", help="plan: of an hour of a GPU (or core), in any currency")
    parser.add_argument("--published", action="store_true", help="report, compare: the paper's own numbers")
    parser.add_argument("--record", type=Path, metavar="DIR", help="report: draw a record's figure again")
    parser.add_argument("--step", metavar="RUNG", help="compare: this rung alone, in every metric")
    parser.add_argument(
        "--against", metavar="RUNG", help="compare: with this one (default: the rung it comes from); diff: recipe"
    )
    parser.add_argument("--margin", metavar="POINTS", help="top-1: smaller changes are as good as none (default: 0.2)")
    parser.add_argument("--images", metavar="N", help="robustness: test images for each network (default: 500)")
    parser.add_argument(
        "--radii", nargs="+", metavar="R", help="robustness: of attacks, in 255ths of a pixel's range (default: 2 4 8)"
    )
    parser.add_argument(
        "--json", action="store_true", help="verify, check, plan, status, measure, compare, ...: one JSON object a line"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run one action; return the exit code: 0, 1 (a check or run failed), 2 (cannot be done as asked), 130 (Ctrl-C)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal or file that cannot show a character ends nothing
    arguments = parse(argv)
    if my_rank():  # torchrun's first process speaks
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        from roadmap.cli import actions

        code = actions.act(arguments, ACTIONS)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UserError as error:
        print(f"run_ladder.py: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (`| head`) has seen enough; nor will it read what Python flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"run_ladder.py: {error.filename or 'output'}: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
