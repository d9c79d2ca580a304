"""``python -m n2n_edge`` is the `n2n-edge` command."""

from n2n_edge.cli.app import main

main()
