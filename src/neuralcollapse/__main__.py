"""`python -m neuralcollapse`, for launchers that start modules: `torchrun --nproc-per-node 2 -m neuralcollapse …`."""

from neuralcollapse.cli import main

if __name__ == "__main__":
    main()
