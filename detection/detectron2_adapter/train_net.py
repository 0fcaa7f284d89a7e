"""Train with detectron2: python -m detection.detectron2_adapter.train_net --config-file FILE.

Options in detectron2's manner: ``--num-gpus``, ``--resume``, ``--eval-only`` and so on, then KEY
VALUE pairs (key=value for a LazyConfig) that depart from the file; see detection/README.md.
"""

import argparse
import sys

from torch.multiprocessing.spawn import ProcessExitedException

from common.errors import EXIT_USER_ERROR, UserError, run_main
from detection.detectron2_adapter import require_detectron2


def run_process(args: argparse.Namespace) -> None:
    """One process of the launcher: a user's mistake is one line and exit code 2."""
    from detection.detectron2_adapter.trainer import run

    def train() -> None:
        run(args)

    run_main(train)


def main() -> None:
    """Command line.

    Raises:
        UserError: for any mistake a user can mend.
    """
    require_detectron2()
    from detectron2.engine import default_argument_parser, launch

    from detection.detectron2_adapter.trainer import check, read_config

    args = default_argument_parser().parse_args()
    if not args.config_file:
        raise UserError(
            "--config-file is missing; name a file, or one of detectron2's model zoo such as "
            "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml."
        )
    processes = args.num_gpus * args.num_machines
    check(read_config(args.config_file, args.opts), processes)
    try:
        launch(
            run_process,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except ProcessExitedException as error:
        # It has said why.
        sys.exit(error.exit_code or EXIT_USER_ERROR)


if __name__ == "__main__":
    run_main(main)
