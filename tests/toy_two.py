"""A second toy: one scale only."""

from tests.toy import Toy, ToyScale


class ToyTwo(Toy):
    """The toy under another name."""

    id = "toy-two"
    scales = {"smoke": ToyScale(seeds=1)}


EXPERIMENT = ToyTwo()
